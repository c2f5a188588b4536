package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

const idProperty = "it_id"

// text makes a message that carries its own id as a property and again in the body.
func text(topic, id string) *primitive.Message {
	message := primitive.NewMessage(topic, []byte("body of "+id))
	message.WithProperty(idProperty, id)
	return message
}

// sendAll sends count messages one by one, ids prefix-0 and on, and returns the ids.
func sendAll(sender rocketmq.Producer, topic, prefix string, count int) (map[string]bool, error) {
	ids := map[string]bool{}
	for i := 0; i < count; i++ {
		id := prefix + "-" + strconv.Itoa(i)
		if err := sendOne(sender, text(topic, id)); err != nil {
			return nil, err
		}
		ids[id] = true
	}
	return ids, nil
}

func sendOne(sender rocketmq.Producer, messages ...*primitive.Message) error {
	result, err := sender.SendSync(context.Background(), messages...)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if result.Status != primitive.SendOK {
		return fmt.Errorf("send status %d, expected OK", result.Status)
	}
	return nil
}

type arrival struct {
	id      string
	message *primitive.MessageExt
	at      time.Time
}

// received is a listener that keeps every message it is given, with the time of its arrival.
type received struct {
	mutex    sync.Mutex
	arrivals []arrival
	times    map[string]int
	broken   error
}

func newReceived() *received { return &received{times: map[string]int{}} }

func (r *received) listen(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	now := time.Now()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, message := range messages {
		id := message.GetProperty(idProperty)
		if string(message.Body) != "body of "+id {
			r.broken = fmt.Errorf("message %q came with the body %.60q", id, message.Body)
		}
		r.arrivals = append(r.arrivals, arrival{id, message, now})
		r.times[id]++
	}
	return consumer.ConsumeSuccess, nil
}

func (r *received) snapshot() []arrival {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return append([]arrival(nil), r.arrivals...)
}

func (r *received) ids() map[string]bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	ids := make(map[string]bool, len(r.times))
	for id := range r.times {
		ids[id] = true
	}
	return ids
}

func (r *received) distinct() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.times)
}

func (r *received) repeats() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.arrivals) - len(r.times)
}

func (r *received) intact() error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.broken
}

// awaitIDs waits until r holds all wanted ids.
func (r *received) awaitIDs(limit time.Duration, wanted map[string]bool, what string) error {
	return await(limit, func() string {
		have := r.ids()
		missing := 0
		for id := range wanted {
			if !have[id] {
				missing++
			}
		}
		if missing == 0 {
			return ""
		}
		return fmt.Sprintf("%s: %d of %d missing", what, missing, len(wanted))
	})
}

// sameIDs fails unless both hold the same ids, naming a few of those that differ.
func sameIDs(expected, seen map[string]bool, what string) error {
	missing, unknown := difference(expected, seen), difference(seen, expected)
	if len(missing)+len(unknown) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d missing %v, %d not expected %v", what, len(missing), few(missing), len(unknown), few(unknown))
}

func difference(a, b map[string]bool) []string {
	var only []string
	for id := range a {
		if !b[id] {
			only = append(only, id)
		}
	}
	sort.Strings(only)
	return only
}

func few(ids []string) []string {
	if len(ids) > 5 {
		return ids[:5]
	}
	return ids
}
