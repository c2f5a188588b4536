package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const (
	shareQueues  = 8
	shareSenders = 4
	shareEach    = 5000
	shareBatch   = 50
)

func shareMixedSends(w *world) (string, error) {
	topic, err := w.topic(shareQueues)
	if err != nil {
		return "", err
	}
	group := w.name("g")
	first, second := newReceived(), newReceived()
	for _, one := range []*received{first, second} {
		if _, err := w.push(group, topic, "*", one.listen); err != nil {
			return "", err
		}
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	probes, err := awaitBalance(sender, topic, first, second)
	if err != nil {
		return "", err
	}
	start := time.Now()
	sent, err := sendMixed(sender, topic)
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	for id := range probes {
		sent[id] = true
	}
	both := func() map[string]bool {
		ids := first.ids()
		for id := range second.ids() {
			ids[id] = true
		}
		return ids
	}
	err = await(40*time.Second, func() string {
		if seen := len(both()); seen < len(sent) {
			return fmt.Sprintf("%d distinct messages, got %d", len(sent), seen)
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	if err := sameIDs(sent, both(), "messages of the group"); err != nil {
		return "", err
	}
	if err := requireShared(first, second); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d sent in %.1f s (sync, async, one-way, batch); consumers got %d and %d, %d repeats", shareSenders*shareEach,
		took.Seconds(), first.distinct(), second.distinct(), first.repeats()+second.repeats()), nil
}

// awaitBalance sends probes over all queues until two consumers share them four and four. The client has no public
// way to say which queues it holds.
func awaitBalance(sender rocketmq.Producer, topic string, first, second *received) (map[string]bool, error) {
	probes := map[string]bool{}
	deadline := time.Now().Add(45 * time.Second)
	for round := 0; ; round++ {
		prefix := "probe-" + strconv.Itoa(round)
		ids, err := sendAll(sender, topic, prefix, 2*shareQueues)
		if err != nil {
			return nil, err
		}
		for id := range ids {
			probes[id] = true
		}
		time.Sleep(300 * time.Millisecond)
		a, b := queuesOf(first, ids), queuesOf(second, ids)
		if len(a) == shareQueues/2 && len(b) == shareQueues/2 && disjoint(a, b) {
			return probes, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("two consumers do not share 8 queues four and four: %d and %d", len(a), len(b))
		}
	}
}

func queuesOf(r *received, ids map[string]bool) map[int]bool {
	queues := map[int]bool{}
	for _, one := range r.snapshot() {
		if ids == nil || ids[one.id] {
			queues[one.message.Queue.QueueId] = true
		}
	}
	return queues
}

func disjoint(a, b map[int]bool) bool {
	for queue := range a {
		if b[queue] {
			return false
		}
	}
	return true
}

func sendMixed(sender rocketmq.Producer, topic string) (map[string]bool, error) {
	var wait, answers sync.WaitGroup
	var failure atomic.Pointer[error]
	fail := func(err error) { failure.CompareAndSwap(nil, &err) }
	sent := map[string]bool{}
	for s := 0; s < shareSenders; s++ {
		for i := 0; i < shareEach; i++ {
			sent[fmt.Sprintf("%d-%d", s, i)] = true
		}
	}
	for s := 0; s < shareSenders; s++ {
		wait.Add(1)
		go func(s int) {
			defer wait.Done()
			if err := sendShare(sender, topic, s, &answers, fail); err != nil {
				fail(err)
			}
		}(s)
	}
	wait.Wait()
	answers.Wait()
	if err := failure.Load(); err != nil {
		return nil, *err
	}
	return sent, nil
}

func sendShare(sender rocketmq.Producer, topic string, s int, answers *sync.WaitGroup, fail func(error)) error {
	var batch []*primitive.Message
	for i := 0; i < shareEach; i++ {
		message := text(topic, fmt.Sprintf("%d-%d", s, i))
		var err error
		switch i % 4 {
		case 0:
			err = sendOne(sender, message)
		case 1:
			answers.Add(1)
			err = sender.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
				defer answers.Done()
				if err != nil {
					fail(fmt.Errorf("asynchronous send: %w", err))
				} else if result.Status != primitive.SendOK {
					fail(fmt.Errorf("asynchronous send status %d", result.Status))
				}
			}, message)
		case 2:
			err = sender.SendOneWay(context.Background(), message)
		default:
			batch = append(batch, message)
		}
		if err == nil && (len(batch) == shareBatch || i == shareEach-1) {
			err = sendOne(sender, batch...)
			batch = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// probeOwner marks an offset that either consumer may have got, before the queues were shared.
const probeOwner = -1

// requireShared looks at what came: each queue has one consumer since the balance, and no offset is missing.
func requireShared(first, second *received) error {
	perQueue := map[int]map[int64]int{}
	for owner, one := range []*received{first, second} {
		if err := one.intact(); err != nil {
			return err
		}
		for _, a := range one.snapshot() {
			queue := a.message.Queue.QueueId
			if perQueue[queue] == nil {
				perQueue[queue] = map[int64]int{}
			}
			perQueue[queue][a.message.QueueOffset] = owner
			if strings.HasPrefix(a.id, "probe") {
				perQueue[queue][a.message.QueueOffset] = probeOwner
			}
		}
	}
	return requireDense(perQueue)
}

func requireDense(perQueue map[int]map[int64]int) error {
	if len(perQueue) != shareQueues {
		return fmt.Errorf("messages in %d queues, expected %d", len(perQueue), shareQueues)
	}
	for queue, offsets := range perQueue {
		owner := probeOwner
		for offset := int64(0); offset < int64(len(offsets)); offset++ {
			holder, seen := offsets[offset]
			if !seen {
				return fmt.Errorf("queue %d: offset %d of %d was not delivered", queue, offset, len(offsets))
			}
			if owner != probeOwner && holder != probeOwner && holder != owner {
				return fmt.Errorf("queue %d went to both consumers", queue)
			}
			if holder != probeOwner {
				owner = holder
			}
		}
	}
	return nil
}

func broadcast(w *world) (string, error) {
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	group := w.name("g")
	var all []*received
	for i := 0; i < 3; i++ {
		one := newReceived()
		if _, err := w.push(group, topic, "*", one.listen, consumer.WithConsumerModel(consumer.BroadCasting)); err != nil {
			return "", err
		}
		all = append(all, one)
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	sent, err := sendAll(sender, topic, "b", 400)
	if err != nil {
		return "", err
	}
	for i, one := range all {
		if err := one.awaitIDs(30*time.Second, sent, "broadcast to consumer "+strconv.Itoa(i)); err != nil {
			return "", err
		}
		if err := sameIDs(sent, one.ids(), "broadcast"); err != nil {
			return "", err
		}
		if one.repeats() > 0 {
			return "", fmt.Errorf("consumer %d got %d twice", i, one.repeats())
		}
	}
	return "3 consumers got all 400 each, none twice", nil
}

func autoCreate(w *world) (string, error) {
	topic := w.name("t")
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	sent, err := sendAll(sender, topic, "n", 40)
	if err != nil {
		return "", err
	}
	seen := newReceived()
	if _, err := w.push(w.name("g"), topic, "*", seen.listen); err != nil {
		return "", err
	}
	if err := seen.awaitIDs(30*time.Second, sent, "messages of a topic nobody created"); err != nil {
		return "", err
	}
	if err := sameIDs(sent, seen.ids(), "messages"); err != nil {
		return "", err
	}
	return fmt.Sprintf("40 sent to a topic nobody created, got over %d queues", len(queuesOf(seen, nil))), nil
}
