// Command etcd is the etcd server and nothing more: `go install` refuses the module's own main package.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
