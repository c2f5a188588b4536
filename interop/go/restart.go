package main

import (
	"fmt"
	"time"
)

// restartResumes stops a consumer that has consumed everything, and starts another of its group.
func restartResumes(w *world) (string, error) {
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	group := w.name("g")
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	before, after := newReceived(), newReceived()
	end, err := w.push(group, topic, "*", before.listen)
	if err != nil {
		return "", err
	}
	early, err := sendAll(sender, topic, "early", 500)
	if err != nil {
		return "", err
	}
	if err := before.awaitIDs(30*time.Second, early, "before the restart"); err != nil {
		return "", err
	}
	// The listener has returned for all; let the client note that before it is stopped.
	time.Sleep(300 * time.Millisecond)
	end()
	late, err := sendAll(sender, topic, "late", 500)
	if err != nil {
		return "", err
	}
	if _, err := w.push(group, topic, "*", after.listen); err != nil {
		return "", err
	}
	if err := after.awaitIDs(40*time.Second, late, "sent while nobody listened"); err != nil {
		return "", err
	}
	last, err := sendAll(sender, topic, "last", 100)
	if err != nil {
		return "", err
	}
	if err := after.awaitIDs(15*time.Second, last, "after the restart"); err != nil {
		return "", err
	}
	time.Sleep(settle)
	for id := range last {
		late[id] = true
	}
	if err := sameIDs(late, after.ids(), "after the restart"); err != nil {
		return "", err
	}
	return fmt.Sprintf("500 before, %d after, none of the 500 again", after.distinct()), nil
}
