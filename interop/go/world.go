package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const closeLimit = 15 * time.Second

var (
	namesrv  = namesrvFromEnvironment()
	resolver = primitive.NewPassthroughResolver([]string{namesrv})
	run      = strconv.FormatInt(time.Now().UnixMilli()&0xfffffff, 36) + "_" + strconv.Itoa(os.Getpid())
	serial   atomic.Int64
)

func namesrvFromEnvironment() string {
	if addr := os.Getenv("NAMESRV_ADDR"); addr != "" {
		return addr
	}
	return "127.0.0.1:9876"
}

// world is what one check owns at the broker: fresh names, and clients that end with the check.
type world struct {
	check   string
	mutex   sync.Mutex
	closers []func()
}

// name returns a name nobody used before, fit for topics, groups and instances.
func (w *world) name(kind string) string {
	return fmt.Sprintf("itgo_%s_%s_%s_%d", strings.ReplaceAll(w.check, "-", "_"), kind, run, serial.Add(1))
}

func (w *world) onClose(closer func()) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.closers = append(w.closers, closer)
}

// close ends every client, newest first, in bounded time.
func (w *world) close() {
	w.mutex.Lock()
	closers := w.closers
	w.mutex.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}()
	select {
	case <-done:
	case <-time.After(closeLimit):
		fmt.Printf("note %s: its clients did not end within %s\n", w.check, closeLimit)
	}
}

func (w *world) admin() (admin.Admin, error) {
	made, err := admin.NewAdmin(admin.WithResolver(resolver))
	if err != nil {
		return nil, err
	}
	w.onClose(func() { _ = made.Close() })
	return made, nil
}

// topic creates a topic and waits until the name server routes all its queues.
func (w *world) topic(queues int) (string, error) {
	broker, err := brokerAddress(w)
	if err != nil {
		return "", err
	}
	admins, err := w.admin()
	if err != nil {
		return "", err
	}
	topic := w.name("t")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = admins.CreateTopic(ctx, admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(broker),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues))
	if err != nil {
		return "", fmt.Errorf("create topic: %w", err)
	}
	return topic, w.awaitRoute(topic, queues)
}

func (w *world) awaitRoute(topic string, queues int) error {
	admins, err := w.admin()
	if err != nil {
		return err
	}
	return await(15*time.Second, func() string {
		found, err := admins.FetchPublishMessageQueues(context.Background(), topic)
		if err == nil && len(found) == queues {
			return ""
		}
		return fmt.Sprintf("a route for %s with %d queues (has %d, %v)", topic, queues, len(found), err)
	})
}

var brokerOnce struct {
	sync.Mutex
	address string
}

// brokerAddress asks the broker itself: the offset id of a message that it stored begins with its address.
// The Go client has no public way to read it from a route.
func brokerAddress(w *world) (string, error) {
	brokerOnce.Lock()
	defer brokerOnce.Unlock()
	if brokerOnce.address != "" {
		return brokerOnce.address, nil
	}
	sender, err := w.producer()
	if err != nil {
		return "", err
	}
	result, err := sender.SendSync(context.Background(), text(w.name("t"), "seed"))
	if err != nil {
		return "", fmt.Errorf("send to a topic nobody created: %w", err)
	}
	id, err := primitive.UnmarshalMsgID([]byte(result.OffsetMsgID))
	if err != nil {
		return "", fmt.Errorf("offset id %q: %w", result.OffsetMsgID, err)
	}
	brokerOnce.address = fmt.Sprintf("%s:%d", id.Addr, id.Port)
	return brokerOnce.address, nil
}

func (w *world) producer(options ...producer.Option) (rocketmq.Producer, error) {
	made, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNsResolver(resolver),
		producer.WithGroupName(w.name("p")),
		producer.WithInstanceName(w.name("producer")),
		producer.WithSendMsgTimeout(5 * time.Second),
		producer.WithRetry(2),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	if err := made.Start(); err != nil {
		return nil, fmt.Errorf("start producer: %w", err)
	}
	w.onClose(func() { _ = made.Shutdown() })
	return made, nil
}

type listener func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

// push starts a push consumer of a topic by tags and returns a function that ends it; the end of the check ends it as well.
func (w *world) push(group, topic, tags string, listen listener, options ...consumer.Option) (func(), error) {
	return w.pushBy(consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, group, topic, listen, options...)
}

func (w *world) pushBy(selector consumer.MessageSelector, group, topic string, listen listener, options ...consumer.Option) (func(), error) {
	made, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNsResolver(resolver),
		consumer.WithGroupName(group),
		consumer.WithInstance(w.name("consumer")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	if err := made.Subscribe(topic, selector, listen); err != nil {
		return nil, err
	}
	if err := made.Start(); err != nil {
		return nil, fmt.Errorf("start consumer of %s: %w", topic, err)
	}
	var once sync.Once
	end := func() { once.Do(func() { _ = made.Shutdown() }) }
	w.onClose(end)
	return end, nil
}

// await polls until missing returns "", and fails with what it said last.
func await(limit time.Duration, missing func() string) error {
	deadline := time.Now().Add(limit)
	for {
		what := missing()
		if what == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("waited " + limit.String() + " for " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
