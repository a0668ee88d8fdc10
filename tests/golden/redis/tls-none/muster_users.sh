# Makes the running server's users be as the file says. Never ACL LOAD: that cuts every client off.
file=/muster/users.acl
run() {
  REDISCLI_AUTH=$(cat /muster/secrets/admin) /usr/bin/redis-cli -p 6379 --user muster-admin --no-auth-warning
}
# The commands go in at standard input: passwords are in no process' arguments.
said=$(sed -n 's/^user \([^ ]*\) /ACL SETUSER \1 reset /p' "$file" | run) || exit 1
wrong=$(printf '%s\n' "$said" | grep -v '^OK$')
[ -z "$wrong" ] || { printf '%s\n' "$wrong" >&2; exit 1; }
for user in $(echo 'ACL USERS' | run); do
  grep -q "^user $user " "$file" || echo "ACL DELUSER $user" | run
done
