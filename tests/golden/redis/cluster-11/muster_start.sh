# Starts the server, but never an emptied master: its replica would empty itself too.
nodes=/data/nodes.conf
held=''

# This member as a master with hash slots: its id, the epoch of its claim, the first of its slots; or nothing.
was_master() {
  awk '$3 ~ /myself/ && $3 ~ /master/ && NF > 8 { split($9, range, "-"); print $1, $7, range[1] }' "$nodes" 2>/dev/null
}

# Only the log counts: with it switched on the server never reads a dump.rdb, which an earlier full copy may have left.
has_data() {
  [ -n "$(find /data/appendonlydir -maxdepth 1 \( -name '*.rdb' -o -name '*.aof' \) -size +0 2>/dev/null | head -n 1)" ]
}

# Whether somebody else holds the slot under a later claim. An earlier one does not count: a replica that failed over
# twice in a short time can call itself master on the votes of the first time, until the others tell it better.
was_replaced() {
  while read -r address; do
    REDISCLI_AUTH=$(cat /muster/secrets/admin) timeout 2 /usr/bin/redis-cli -h "$address" -p 6379 --user muster-admin \
      --no-auth-warning cluster nodes 2>/dev/null | awk -v id="$1" -v epoch="$2" -v slot="$3" '
        $1 != id && $7 + 0 > epoch + 0 {
          for (i = 9; i <= NF; i++) {
            if (split($i, range, "-") == 1) range[2] = range[1]
            if (range[1] ~ /^[0-9]+$/ && range[1] + 0 <= slot + 0 && slot + 0 <= range[2] + 0) found = 1
          }
        }
        END { exit !found }' && return 0
  done </muster/peers
  return 1
}

claim=$(was_master)
# shellcheck disable=SC2086 # three words
while [ -n "$claim" ] && ! has_data && ! was_replaced $claim; do
  [ -n "$held" ] || echo "this member was a master with hash slots and its data is gone: it waits until another one was elected" >&2
  held=yes
  sleep 1
done
exec /usr/bin/redis-server /muster/redis.conf
