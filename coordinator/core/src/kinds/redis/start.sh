# Starts the server, but never an emptied master: its replica would empty itself too.
nodes=/data/nodes.conf
held=''

# The id under which this member was a master with hash slots, or nothing.
was_master() {
  awk '$3 ~ /myself/ && $3 ~ /master/ && NF > 8 { print $1 }' "$nodes" 2>/dev/null
}

# Only the log counts: with it switched on the server never reads a dump.rdb, which an earlier full copy may have left.
has_data() {
  [ -n "$(find /data/appendonlydir -maxdepth 1 \( -name '*.rdb' -o -name '*.aof' \) -size +0 2>/dev/null | head -n 1)" ]
}

# Whether the others say that the id has no hash slots any more: then another member was elected in its place.
was_replaced() {
  while read -r address; do
    table=$(REDISCLI_AUTH=$(cat /muster/secrets/admin) timeout 2 @CLIENT@ -h "$address" -p @PORT@ --user muster-admin \
      --no-auth-warning cluster nodes 2>/dev/null) || continue
    line=$(printf '%s\n' "$table" | grep "^$1 ") || continue
    [ "$(printf '%s\n' "$line" | awk '{ print NF }')" -gt 8 ] || return 0
  done </muster/peers
  return 1
}

id=$(was_master)
while [ -n "$id" ] && ! has_data && ! was_replaced "$id"; do
  [ -n "$held" ] || echo "this member was a master with hash slots and its data is gone: it waits until another one was elected" >&2
  held=yes
  sleep 1
done
exec @SERVER@ /muster/redis.conf
