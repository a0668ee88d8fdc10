# Tells the running server what its file says of TLS, and has it read key and certificate anew. Open connections stay.
words() {
  printf 'CONFIG SET'
  while read -r key value; do printf ' %s %s' "$key" "$value"; done </muster/tls.conf
  echo
}
said=$(words | REDISCLI_AUTH=$(cat /muster/secrets/admin) /usr/bin/redis-cli -p 6379 --user muster-admin --no-auth-warning) || exit 1
[ "$said" = OK ] || { printf '%s\n' "$said" >&2; exit 1; }
