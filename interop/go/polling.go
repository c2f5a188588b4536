package main

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// pullConsumer returns a started pull consumer of one topic and a function that ends it.
func (w *world) pullConsumer(group, topic, tags string) (rocketmq.PullConsumer, func(), error) {
	made, err := rocketmq.NewPullConsumer(
		consumer.WithNsResolver(resolver),
		consumer.WithGroupName(group),
		consumer.WithInstance(w.name("consumer")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	)
	if err != nil {
		return nil, nil, err
	}
	if err := made.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}); err != nil {
		return nil, nil, err
	}
	if err := made.Start(); err != nil {
		return nil, nil, fmt.Errorf("start pull consumer of %s: %w", topic, err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = made.Shutdown()
		}
	}
	w.onClose(end)
	return made, end, nil
}

// pollAndPull polls a topic to its end, goes on after a restart where it stood, and reads one queue by offset.
func pollAndPull(w *world) (string, error) {
	topic, err := w.topic(2)
	if err != nil {
		return "", err
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	sent, err := sendAll(sender, topic, "p", 200)
	if err != nil {
		return "", err
	}
	group := w.name("g")
	first, end, err := w.pullConsumer(group, topic, "*")
	if err != nil {
		return "", err
	}
	if err := pollExactly(first, sent, "polled"); err != nil {
		return "", err
	}
	end()
	more, err := sendAll(sender, topic, "more", 50)
	if err != nil {
		return "", err
	}
	second, _, err := w.pullConsumer(group, topic, "*")
	if err != nil {
		return "", err
	}
	if err := pollExactly(second, more, "polled after a restart"); err != nil {
		return "", err
	}
	if err := pullByOffset(w, sender); err != nil {
		return "", err
	}
	return "200 polled, after a restart the next 50 and none again; 10 of one queue from offset 40", nil
}

// pollExactly polls until all wanted came, and once more for what should not.
func pollExactly(from rocketmq.PullConsumer, wanted map[string]bool, what string) error {
	seen := newReceived()
	poll := func(limit time.Duration) error {
		request, err := from.Poll(context.Background(), limit)
		if consumer.IsNoNewMsgError(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if _, err := seen.listen(context.Background(), request.GetMsgList()...); err != nil {
			return err
		}
		from.ACK(context.Background(), request, consumer.ConsumeSuccess)
		return nil
	}
	deadline := time.Now().Add(40 * time.Second)
	for seen.distinct() < len(wanted) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d of %d messages", what, seen.distinct(), len(wanted))
		}
		if err := poll(time.Second); err != nil {
			return err
		}
	}
	if err := poll(settle); err != nil {
		return err
	}
	if err := seen.intact(); err != nil {
		return err
	}
	if seen.repeats() > 0 {
		return fmt.Errorf("%s: %d came twice", what, seen.repeats())
	}
	return sameIDs(wanted, seen.ids(), what)
}

func pullByOffset(w *world, sender rocketmq.Producer) error {
	topic, err := w.topic(1)
	if err != nil {
		return err
	}
	var queue *primitive.MessageQueue
	for i := 0; i < 60; i++ {
		result, err := sender.SendSync(context.Background(), text(topic, fmt.Sprintf("o-%d", i)))
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		queue = result.MessageQueue
	}
	pulls, _, err := w.pullConsumer(w.name("g"), topic, "*")
	if err != nil {
		return err
	}
	result, err := pulls.PullFrom(context.Background(), queue, 40, 10)
	if err != nil {
		return fmt.Errorf("pull from 40: %w", err)
	}
	if result.Status != primitive.PullFound || result.NextBeginOffset != 50 || result.MaxOffset != 60 {
		return fmt.Errorf("pull from 40: %s", result)
	}
	for i, message := range result.GetMessageExts() {
		if id := message.GetProperty(idProperty); id != fmt.Sprintf("o-%d", 40+i) || message.QueueOffset != int64(40+i) {
			return fmt.Errorf("pull from 40: %s with offset %d at place %d", id, message.QueueOffset, i)
		}
	}
	if count := len(result.GetMessageExts()); count != 10 {
		return fmt.Errorf("pull from 40: %d messages, expected 10", count)
	}
	return nil
}
