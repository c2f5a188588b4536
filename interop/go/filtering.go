package main

import (
	"fmt"
	"strconv"
	"time"
)

// settle is long enough for a message that should not come to come.
const settle = 1500 * time.Millisecond

func tagFilter(w *world) (string, error) {
	const total = 600
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	some, all := newReceived(), newReceived()
	if _, err := w.push(w.name("g"), topic, "A || C || Aa", some.listen); err != nil {
		return "", err
	}
	if _, err := w.push(w.name("g"), topic, "*", all.listen); err != nil {
		return "", err
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	// "Aa" and "BB" have the same Java hash, which is what a broker compares.
	tags := []string{"A", "B", "C", "", "Aa", "BB"}
	sent, wanted := map[string]bool{}, map[string]bool{}
	for i := 0; i < total; i++ {
		id := "f-" + strconv.Itoa(i)
		message := text(topic, id)
		if tag := tags[i%len(tags)]; tag != "" {
			message.WithTag(tag)
		}
		if err := sendOne(sender, message); err != nil {
			return "", err
		}
		sent[id] = true
		if i%2 == 0 {
			wanted[id] = true
		}
	}
	if err := all.awaitIDs(30*time.Second, sent, "messages for *"); err != nil {
		return "", err
	}
	if err := some.awaitIDs(15*time.Second, wanted, "messages tagged A, C or Aa"); err != nil {
		return "", err
	}
	time.Sleep(settle)
	if err := sameIDs(wanted, some.ids(), "A || C || Aa"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d of %d matched \"A || C || Aa\", no other came", len(wanted), total), nil
}
