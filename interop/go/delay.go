package main

import (
	"fmt"
	"time"
)

func delayLevels(w *world) (string, error) {
	const each, late = 10, 3 * time.Second
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	seen := newReceived()
	if _, err := w.push(w.name("g"), topic, "*", seen.listen); err != nil {
		return "", err
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	// A consumer may need a moment to get its queues; the first message tells.
	ready, err := sendAll(sender, topic, "ready", 1)
	if err != nil {
		return "", err
	}
	if err := seen.awaitIDs(30*time.Second, ready, "a first message"); err != nil {
		return "", err
	}
	levels := []time.Duration{0, time.Second, 5 * time.Second}
	due := map[string]time.Time{}
	sent := map[string]bool{"ready-0": true}
	for i := 0; i < each; i++ {
		for level, delay := range levels {
			id := fmt.Sprintf("%d-%d", level, i)
			due[id] = time.Now().Add(delay)
			message := text(topic, id).WithTag("T")
			if level > 0 {
				message.WithDelayTimeLevel(level)
			}
			if err := sendOne(sender, message); err != nil {
				return "", err
			}
			sent[id] = true
		}
	}
	if err := seen.awaitIDs(20*time.Second, sent, "delayed messages"); err != nil {
		return "", err
	}
	if err := sameIDs(sent, seen.ids(), "delayed messages"); err != nil {
		return "", err
	}
	lowest, highest := time.Hour, -time.Hour
	for _, one := range seen.snapshot() {
		if one.id == "ready-0" {
			continue
		}
		off := one.at.Sub(due[one.id])
		if off < 0 || off > late {
			return "", fmt.Errorf("%s came %s after its time", one.id, off)
		}
		if one.message.Topic != topic || one.message.GetTags() != "T" {
			return "", fmt.Errorf("%s shows topic %s and tag %s", one.id, one.message.Topic, one.message.GetTags())
		}
		lowest, highest = min(lowest, off), max(highest, off)
	}
	return fmt.Sprintf("%d messages, %d to %d ms after their time", len(due), lowest.Milliseconds(), highest.Milliseconds()), nil
}
