package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
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

// sql92 subscribes by a condition over properties, one of which some messages do not have.
func sql92(w *world) (string, error) {
	const total = 400
	const condition = "(amount BETWEEN 20 AND 40 AND region IN ('eu', 'us') AND note IS NULL) OR TAGS = 'always'"
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	some, all := newReceived(), newReceived()
	selector := consumer.MessageSelector{Type: consumer.SQL92, Expression: condition}
	if _, err := w.pushBy(selector, w.name("g"), topic, some.listen); err != nil {
		return "", err
	}
	if _, err := w.push(w.name("g"), topic, "*", all.listen); err != nil {
		return "", err
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	regions := []string{"eu", "us", "asia"}
	sent, wanted := map[string]bool{}, map[string]bool{}
	for i := 0; i < total; i++ {
		id, amount, region := "s-"+strconv.Itoa(i), i%100, regions[i%len(regions)]
		message := text(topic, id)
		message.WithProperty("amount", strconv.Itoa(amount))
		message.WithProperty("region", region)
		if i%2 == 0 {
			message.WithProperty("note", "even")
		}
		if i%50 == 49 {
			message.WithTag("always")
		}
		if err := sendOne(sender, message); err != nil {
			return "", err
		}
		sent[id] = true
		if amount >= 20 && amount <= 40 && region != "asia" && i%2 == 1 || i%50 == 49 {
			wanted[id] = true
		}
	}
	if err := all.awaitIDs(30*time.Second, sent, "messages for *"); err != nil {
		return "", err
	}
	if err := some.awaitIDs(15*time.Second, wanted, "messages that match"); err != nil {
		return "", err
	}
	time.Sleep(settle)
	if err := sameIDs(wanted, some.ids(), condition); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d of %d matched, no other came", len(wanted), total), nil
}
