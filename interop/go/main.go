// Command interop judges a RocketMQ-protocol broker with the official, unmodified Go client.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// A check is one named expectation on a broker. Its body returns what was seen, or why the expectation does not hold.
type check struct {
	name  string
	limit time.Duration
	body  func(*world) (string, error)
}

var checks = []check{
	{"share-20000", 100 * time.Second, shareMixedSends},
	{"retry-dlq", 90 * time.Second, retryUntilDeadLetter},
	{"transaction", 150 * time.Second, transactionDecisions},
	{"restart", 90 * time.Second, restartResumes},
	{"broadcast", 60 * time.Second, broadcast},
	{"auto-create", 60 * time.Second, autoCreate},
	{"tags", 60 * time.Second, tagFilter},
	{"sql92", 60 * time.Second, sql92},
	{"delay-levels", 60 * time.Second, delayLevels},
	{"timer", 60 * time.Second, timer},
	{"pull", 120 * time.Second, pollAndPull},
	{"request-reply", 60 * time.Second, requestReply},
	{"trace", 90 * time.Second, traced},
	{"bodies", 60 * time.Second, bodies},
	{"orderly", 60 * time.Second, orderly},
}

func main() {
	list := flag.Bool("list", false, "print the names of the checks")
	jobs := flag.Int("jobs", 4, "how many checks run at once")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: [--list] [--jobs N] [check ...]   (NAMESRV_ADDR, default 127.0.0.1:9876)")
	}
	flag.Parse()
	if *list {
		for _, c := range checks {
			fmt.Println(c.name)
		}
		return
	}
	chosen, err := choose(flag.Args())
	if err != nil || *jobs < 1 {
		fmt.Fprintln(os.Stderr, err)
		flag.Usage()
		os.Exit(2)
	}
	// The client writes what it logs to the standard output, between the lines of the checks.
	rlog.SetLogLevel("fatal")
	if !reachable(namesrv) {
		fmt.Printf("no name server answers at %s (NAMESRV_ADDR)\ninterop go: 0 passed, %d failed\n", namesrv, len(chosen))
		os.Exit(1)
	}
	if !runAll(chosen, *jobs) {
		os.Exit(1)
	}
}

func choose(names []string) ([]check, error) {
	if len(names) == 0 {
		return checks, nil
	}
	var chosen []check
	for _, name := range names {
		found := false
		for _, c := range checks {
			if c.name == name {
				chosen, found = append(chosen, c), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no check is called %s", name)
		}
	}
	return chosen, nil
}

func reachable(addr string) bool {
	connection, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return false
	}
	connection.Close()
	return true
}

func runAll(chosen []check, jobs int) bool {
	var wait sync.WaitGroup
	lanes := make(chan struct{}, jobs)
	results := make(chan bool, len(chosen))
	for _, c := range chosen {
		lanes <- struct{}{}
		wait.Add(1)
		go func(c check) {
			defer wait.Done()
			results <- runOne(c)
			<-lanes
		}(c)
	}
	wait.Wait()
	close(results)
	passed := 0
	for ok := range results {
		if ok {
			passed++
		}
	}
	fmt.Printf("interop go: %d passed, %d failed\n", passed, len(chosen)-passed)
	return passed == len(chosen)
}

type outcome struct {
	detail string
	err    error
}

func runOne(c check) bool {
	start := time.Now()
	w := &world{check: c.name}
	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if caught := recover(); caught != nil {
				done <- outcome{err: fmt.Errorf("panic: %v %s", caught, debug.Stack())}
			}
		}()
		detail, err := c.body(w)
		done <- outcome{detail, err}
	}()
	var seen outcome
	select {
	case seen = <-done:
	case <-time.After(c.limit):
		seen.err = fmt.Errorf("not done within %s", c.limit)
	}
	w.close()
	line := "PASS " + c.name + ": " + seen.detail
	if seen.err != nil {
		line = "FAIL " + c.name + ": " + seen.err.Error()
	}
	fmt.Printf("%s (%.1f s)\n", strings.Join(strings.Fields(line), " "), time.Since(start).Seconds())
	return seen.err == nil
}
