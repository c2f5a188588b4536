package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// orderly sends by key and expects each key's numbers in the order they were sent.
func orderly(w *world) (string, error) {
	const keys, each = 12, 50
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	var mutex sync.Mutex
	byKey, count := map[string][]int{}, 0
	listen := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mutex.Lock()
		defer mutex.Unlock()
		for _, message := range messages {
			key, number, _ := strings.Cut(message.GetProperty(idProperty), "-")
			n, err := strconv.Atoi(number)
			if err != nil {
				return consumer.ConsumeSuccess, nil
			}
			byKey[key] = append(byKey[key], n)
			count++
		}
		return consumer.ConsumeSuccess, nil
	}
	if _, err := w.push(w.name("g"), topic, "*", listen, consumer.WithConsumerOrder(true)); err != nil {
		return "", err
	}
	sender, err := w.producer(producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return "", err
	}
	for i := 0; i < each; i++ {
		for k := 0; k < keys; k++ {
			key := "k" + strconv.Itoa(k)
			if err := sendOne(sender, text(topic, key+"-"+strconv.Itoa(i)).WithShardingKey(key)); err != nil {
				return "", err
			}
		}
	}
	err = await(40*time.Second, func() string {
		mutex.Lock()
		defer mutex.Unlock()
		if count >= keys*each {
			return ""
		}
		return fmt.Sprintf("%d messages, got %d", keys*each, count)
	})
	if err != nil {
		return "", err
	}
	mutex.Lock()
	defer mutex.Unlock()
	for key, numbers := range byKey {
		for i, number := range numbers {
			if i != number {
				return "", fmt.Errorf("key %s: number %d came at place %d", key, number, i)
			}
		}
	}
	if len(byKey) != keys {
		return "", fmt.Errorf("%d keys, expected %d", len(byKey), keys)
	}
	return fmt.Sprintf("%d messages of %d keys in order", count, keys), nil
}
