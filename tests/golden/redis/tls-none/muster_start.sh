# Starts the server as nobody's replica. Whether it leads is the platform's word; this only takes up again what was said
# before, and only while nobody else can have been told otherwise.
cli() {
  at=$1
  shift
  REDISCLI_AUTH=$(cat /muster/secrets/admin) timeout 2 /usr/bin/redis-cli -h "$at" -p 6379 --user muster-admin --no-auth-warning "$@" 2>/dev/null
}

field() {
  printf '%s\n' "$1" | tr -d '\r' | sed -n "s/^$2://p"
}

# The member that leads by a newer or the same word, or nothing; $silent and $other say what else there is.
look_around() {
  silent='' other='' lead=''
  [ -s /muster/peers ] || silent=yes
  while read -r address; do
    said=$(cli "$address" get muster:master </dev/null) && info=$(cli "$address" info replication </dev/null) || { silent=yes; continue; }
    epoch=${said%% *}
    [ "${epoch:-0}" -le "$1" ] || other=yes
    case $(field "$info" role) in
      master) [ "${epoch:-0}" -lt "$1" ] && other=yes || lead=$address ;;
      slave) case $(field "$info" master_host) in 127.0.0.1 | 172.31.10.18) ;; *) other=yes ;; esac ;;
      *) silent=yes ;;
    esac
  done </muster/peers
}

settle() {
  while sleep 0.3; do
    info=$(cli 127.0.0.1 info) || continue
    [ "$(field "$info" loading)" = 0 ] || continue
    [ "$(field "$info" role)" = slave ] && [ "$(field "$info" master_host)" = 127.0.0.1 ] || return 0
    own=$(cli 127.0.0.1 get muster:master) || continue
    # Without a word in its data it may have lost that: only the platform can tell.
    case $own in [0-9]*\ [0-9]*) ;; *) continue ;; esac
    look_around "${own%% *}"
    if [ -n "$lead" ]; then
      cli 127.0.0.1 replicaof "$lead" 6379
    elif [ "${own##* }" = 4 ] && [ -z "$silent$other" ]; then
      cli 127.0.0.1 replicaof no one
    fi
  done
}

settle >/dev/null &
exec /usr/bin/redis-server /muster/redis.conf
