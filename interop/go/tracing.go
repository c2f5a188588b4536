package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const traceTopic = "RMQ_SYS_TRACE_TOPIC"

// traced sends and consumes with tracing and finds both in the trace topic, under the message's id and key.
func traced(w *world) (string, error) {
	topic, err := w.topic(1)
	if err != nil {
		return "", err
	}
	if err := routeTraceTopic(w); err != nil {
		return "", err
	}
	var mutex sync.Mutex
	var traces []*primitive.MessageExt
	collect := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mutex.Lock()
		defer mutex.Unlock()
		traces = append(traces, messages...)
		return consumer.ConsumeSuccess, nil
	}
	if _, err := w.push(w.name("g"), traceTopic, "*", collect); err != nil {
		return "", err
	}
	config := &primitive.TraceConfig{Access: primitive.Local, Resolver: resolver}
	seen := newReceived()
	group := w.name("g")
	if _, err := w.push(group, topic, "*", seen.listen, consumer.WithTrace(config)); err != nil {
		return "", err
	}
	sender, err := w.producer(producer.WithTrace(config))
	if err != nil {
		return "", err
	}
	key := w.name("key")
	result, err := sender.SendSync(context.Background(), text(topic, "traced").WithKeys([]string{key}))
	if err != nil {
		return "", fmt.Errorf("send: %w", err)
	}
	if err := seen.awaitIDs(30*time.Second, map[string]bool{"traced": true}, "the traced message"); err != nil {
		return "", err
	}
	kinds := []string{"Pub", "SubBefore", "SubAfter"}
	err = await(20*time.Second, func() string {
		mutex.Lock()
		defer mutex.Unlock()
		for _, kind := range kinds {
			if !recorded(traces, kind, result.MsgID, key) {
				return fmt.Sprintf("a record %s of the message among %d in %s", kind, len(traces), traceTopic)
			}
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	return "sending and consuming found in " + traceTopic + " under the message's id and key", nil
}

// recorded says whether a trace has the message's id and key among its keys and a record of the kind that names the message.
func recorded(traces []*primitive.MessageExt, kind, id, key string) bool {
	for _, trace := range traces {
		keys := " " + trace.GetKeys() + " "
		if !strings.Contains(keys, " "+id+" ") || !strings.Contains(keys, " "+key+" ") {
			continue
		}
		for _, record := range bytes.Split(trace.Body, []byte{2}) {
			if bytes.HasPrefix(record, append([]byte(kind), 1)) && bytes.Contains(record, []byte(id)) {
				return true
			}
		}
	}
	return false
}

// routeTraceTopic makes the trace topic by a send where a broker has none yet: the client's tracing waits for a route and drops
// what it has until then.
func routeTraceTopic(w *world) error {
	made, err := w.admin()
	if err != nil {
		return err
	}
	topics, err := made.FetchAllTopicList(context.Background())
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	if has(topics, traceTopic) {
		return nil
	}
	sender, err := w.producer()
	if err != nil {
		return err
	}
	return sendOne(sender, primitive.NewMessage(traceTopic, []byte("seed")))
}

func has(topics *admin.TopicList, topic string) bool {
	for _, one := range topics.TopicList {
		if one == topic {
			return true
		}
	}
	return false
}
