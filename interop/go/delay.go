package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const (
	delayedEach = 10
	delayedLate = 3 * time.Second
	// RocketMQ's timer wheel turns once a second, and may deliver up to one turn early.
	timerTurn = time.Second
)

// A wait is a delay and how a message asks for it.
type wait struct {
	delay time.Duration
	ask   func(*primitive.Message)
}

func delayLevels(w *world) (string, error) {
	level := func(level int) func(*primitive.Message) {
		return func(message *primitive.Message) { message.WithDelayTimeLevel(level) }
	}
	return delayed(w, 0, []wait{{0, func(*primitive.Message) {}}, {time.Second, level(1)}, {5 * time.Second, level(2)}})
}

// timer uses the properties that a newer client sets; this one has no functions for them.
func timer(w *world) (string, error) {
	property := func(name string, value func() int64) func(*primitive.Message) {
		return func(message *primitive.Message) { message.WithProperty(name, strconv.FormatInt(value(), 10)) }
	}
	at := func() int64 { return time.Now().Add(4700 * time.Millisecond).UnixMilli() }
	return delayed(w, timerTurn, []wait{
		{2300 * time.Millisecond, property("TIMER_DELAY_MS", func() int64 { return 2300 })},
		{3 * time.Second, property("TIMER_DELAY_SEC", func() int64 { return 3 })},
		{4700 * time.Millisecond, property("TIMER_DELIVER_MS", at)},
	})
}

// delayed sends messages with each wait and expects all of them, once, none before its time less early.
func delayed(w *world, early time.Duration, waits []wait) (string, error) {
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
	due := map[string]time.Time{}
	sent := map[string]bool{"ready-0": true}
	for i := 0; i < delayedEach; i++ {
		for kind, one := range waits {
			id := fmt.Sprintf("%d-%d", kind, i)
			message := text(topic, id).WithTag("T")
			due[id] = time.Now().Add(one.delay)
			one.ask(message)
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
	if seen.repeats() > 0 {
		return "", fmt.Errorf("%d came twice", seen.repeats())
	}
	lowest, highest := time.Hour, -time.Hour
	for _, one := range seen.snapshot() {
		if one.id == "ready-0" {
			continue
		}
		off := one.at.Sub(due[one.id])
		if off < -early || off > delayedLate {
			return "", fmt.Errorf("%s came %s after its time", one.id, off)
		}
		if one.message.Topic != topic || one.message.GetTags() != "T" {
			return "", fmt.Errorf("%s shows topic %s and tag %s", one.id, one.message.Topic, one.message.GetTags())
		}
		lowest, highest = min(lowest, off), max(highest, off)
	}
	return fmt.Sprintf("%d messages, %d to %d ms after their time", len(due), lowest.Milliseconds(), highest.Milliseconds()), nil
}
