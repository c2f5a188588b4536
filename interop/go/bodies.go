package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// bodies sends bodies of many sizes, one of them compressible, and properties of many letters.
func bodies(w *world) (string, error) {
	topic, err := w.topic(2)
	if err != nil {
		return "", err
	}
	var mutex sync.Mutex
	seen := map[string]*primitive.MessageExt{}
	listen := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mutex.Lock()
		defer mutex.Unlock()
		for _, message := range messages {
			seen[message.GetProperty(idProperty)] = message
		}
		return consumer.ConsumeSuccess, nil
	}
	if _, err := w.push(w.name("g"), topic, "*", listen); err != nil {
		return "", err
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	random := rand.New(rand.NewSource(42))
	sent := map[string][]byte{"text": []byte(strings.Repeat("a text that repeats itself, ", 4000))}
	for _, size := range []int{1, 4095, 4097, 65536, 1 << 20, 4<<20 - 16<<10} {
		body := make([]byte, size)
		random.Read(body)
		sent[fmt.Sprint(size)] = body
	}
	const odd = "größe 鍵 🔑 {\"a\":[1]}=;,&"
	for id, body := range sent {
		message := primitive.NewMessage(topic, body).WithKeys([]string{"key-" + id, "schlüssel"})
		message.WithProperty(idProperty, id)
		message.WithProperty("odd", odd)
		if err := sendOne(sender, message); err != nil {
			return "", fmt.Errorf("body %s: %w", id, err)
		}
	}
	err = await(30*time.Second, func() string {
		mutex.Lock()
		defer mutex.Unlock()
		if len(seen) >= len(sent) {
			return ""
		}
		return fmt.Sprintf("%d messages, got %d", len(sent), len(seen))
	})
	if err != nil {
		return "", err
	}
	mutex.Lock()
	defer mutex.Unlock()
	for id, body := range sent {
		message := seen[id]
		if message == nil || !bytes.Equal(body, message.Body) {
			return "", fmt.Errorf("body %s came back different or not at all", id)
		}
		if message.GetProperty("odd") != odd || message.GetKeys() != "key-"+id+" schlüssel" {
			return "", fmt.Errorf("body %s came with the property %q and keys %q", id, message.GetProperty("odd"), message.GetKeys())
		}
	}
	if stored := seen["text"].StoreSize; int(stored) > len(sent["text"])/2 {
		return "", fmt.Errorf("stored %d bytes of a text of %d: not compressed", stored, len(sent["text"]))
	}
	return fmt.Sprintf("%d bodies of 1 byte to near 4 MiB as sent; a text of %d bytes stored in %d", len(sent), len(sent["text"]), seen["text"].StoreSize), nil
}
