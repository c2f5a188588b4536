package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

func requestReply(w *world) (string, error) {
	const rounds = 10
	topic, err := w.topic(2)
	if err != nil {
		return "", err
	}
	answers, err := w.producer()
	if err != nil {
		return "", err
	}
	var mutex sync.Mutex
	var failure error
	listen := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			// The client takes the body it is given here for properties.
			reply, err := consumer.CreateReplyMessage(message, nil)
			if err == nil {
				reply.Body = append([]byte("reply to "), message.Body...)
				err = answer(answers, reply)
			}
			if err != nil {
				mutex.Lock()
				failure = err
				mutex.Unlock()
			}
		}
		return consumer.ConsumeSuccess, nil
	}
	if _, err := w.push(w.name("g"), topic, "*", listen); err != nil {
		return "", err
	}
	asks, err := w.producer()
	if err != nil {
		return "", err
	}
	for i := 0; i < rounds; i++ {
		id := fmt.Sprintf("r-%d", i)
		reply, err := asks.Request(context.Background(), 15*time.Second, text(topic, id))
		if err != nil {
			mutex.Lock()
			defer mutex.Unlock()
			return "", fmt.Errorf("request %d: %w (answering: %v)", i, err, failure)
		}
		if expected := "reply to body of " + id; string(reply.Body) != expected {
			return "", fmt.Errorf("request %d: the reply is %q", i, reply.Body)
		}
	}
	return fmt.Sprintf("%d requests, each got its own reply", rounds), nil
}

// answer sends a reply. A broker learns by a heartbeat where it goes, and this client's first may come after its first request.
func answer(sender rocketmq.Producer, reply *primitive.Message) error {
	for attempt := 0; ; attempt++ {
		_, err := sender.SendSync(context.Background(), reply)
		if err == nil || attempt == 10 {
			return err
		}
		time.Sleep(300 * time.Millisecond)
	}
}
