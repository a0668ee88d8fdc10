package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// Between two canaries.
	pause = 400 * time.Millisecond
	// Canaries in a row that open the gate: the first one may be lucky with the drives that it met.
	inARow = 3
	// From then on the server has looked again for every drive that did not answer at its start, and without a quorum for writes the
	// canary says nothing about reads.
	patience = 20 * time.Second
)

// gate is what balancers ask before they send requests: open after the canary, closed before the stop.
type gate struct {
	lock   sync.Mutex
	opened bool
	closed bool
	why    string
}

func newGate() *gate { return &gate{why: "no canary yet"} }

// open opens it once the canary passed through this server, or when waiting longer would tell no more.
func (g *gate) open(server string, who login) {
	host, _ := os.Hostname()
	client, err := connect(server, who)
	began := time.Now()
	for passed, try := 0, 0; err == nil; try++ {
		if !answers(server) {
			g.say("the server does not answer")
		} else if failed := canary(client, fmt.Sprintf("%s-gate-%d", host, try%inARow)); failed != nil {
			passed = 0
			g.say(failed.Error())
		} else if passed++; passed == inARow {
			g.pass("canary passed", began)
			return
		}
		if time.Since(began) > patience && answers(server) {
			g.pass("no canary passed, but it is there", began)
			return
		}
		time.Sleep(pause)
	}
	g.say(err.Error())
}

func (g *gate) pass(how string, began time.Time) {
	log.Printf("gate open after %.1f s: %s", time.Since(began).Seconds(), how)
	g.lock.Lock()
	defer g.lock.Unlock()
	g.opened = true
}

func (g *gate) say(why string) {
	g.lock.Lock()
	defer g.lock.Unlock()
	g.why = why
}

// close closes it for good; true = it was open.
func (g *gate) close() bool {
	g.lock.Lock()
	defer g.lock.Unlock()
	was := g.opened && !g.closed
	g.closed, g.why = true, "stopping"
	return was
}

func (g *gate) ServeHTTP(answer http.ResponseWriter, _ *http.Request) {
	g.lock.Lock()
	defer g.lock.Unlock()
	if g.opened && !g.closed {
		fmt.Fprintln(answer, "ready")
		return
	}
	http.Error(answer, g.why, http.StatusServiceUnavailable)
}

func (g *gate) serve(address string) {
	mux := http.NewServeMux()
	mux.Handle("/ready", g)
	server := http.Server{Addr: address, Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	log.Print(server.ListenAndServe())
}
