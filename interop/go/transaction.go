package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const (
	transactionEach = 8
	// askLimit fits a broker with RocketMQ's own defaults: asked when 6 s old, in rounds of 30 s.
	askLimit = 90 * time.Second
)

// decider decides by the first word of the id, first at the send and then when asked.
type decider struct {
	mutex sync.Mutex
	asked map[string]int
	wrong string
}

func (d *decider) ExecuteLocalTransaction(message *primitive.Message) primitive.LocalTransactionState {
	switch kind, _, _ := strings.Cut(message.GetProperty(idProperty), "-"); kind {
	case "commit":
		return primitive.CommitMessageState
	case "rollback":
		return primitive.RollbackMessageState
	default:
		return primitive.UnknowState
	}
}

func (d *decider) CheckLocalTransaction(message *primitive.MessageExt) primitive.LocalTransactionState {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	id := message.GetProperty(idProperty)
	d.asked[id]++
	switch kind, _, _ := strings.Cut(id, "-"); kind {
	case "later_commit":
		return primitive.CommitMessageState
	case "later_rollback":
		return primitive.RollbackMessageState
	case "twice_commit":
		if d.asked[id] > 1 {
			return primitive.CommitMessageState
		}
	default:
		d.wrong = "asked about " + id + ", which was decided"
	}
	return primitive.UnknowState
}

func (d *decider) ids() (map[string]bool, int, string) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	ids, questions := map[string]bool{}, 0
	for id, times := range d.asked {
		ids[id] = true
		questions += times
	}
	return ids, questions, d.wrong
}

func transactionDecisions(w *world) (string, error) {
	topic, err := w.topic(4)
	if err != nil {
		return "", err
	}
	seen := newReceived()
	if _, err := w.push(w.name("g"), topic, "*", seen.listen); err != nil {
		return "", err
	}
	decides := &decider{asked: map[string]int{}}
	sender, err := rocketmq.NewTransactionProducer(decides, producer.WithNsResolver(resolver),
		producer.WithGroupName(w.name("p")), producer.WithInstanceName(w.name("producer")))
	if err != nil {
		return "", err
	}
	if err := sender.Start(); err != nil {
		return "", err
	}
	w.onClose(func() { _ = sender.Shutdown() })

	start := time.Now()
	visible, undecided := map[string]bool{}, map[string]bool{}
	for i := 0; i < transactionEach; i++ {
		for _, kind := range []string{"commit", "rollback", "later_commit", "later_rollback", "twice_commit"} {
			id := fmt.Sprintf("%s-%d", kind, i)
			result, err := sender.SendMessageInTransaction(context.Background(), text(topic, id))
			if err != nil {
				return "", fmt.Errorf("send half message: %w", err)
			}
			if result.Status != primitive.SendOK {
				return "", fmt.Errorf("half message %s: status %d", id, result.Status)
			}
			if strings.HasSuffix(kind, "commit") {
				visible[id] = true
			}
			if strings.Contains(kind, "_") {
				undecided[id] = true
			}
		}
	}
	if err := seen.awaitIDs(askLimit, visible, "committed messages"); err != nil {
		return "", err
	}
	err = await(askLimit, func() string {
		asked, _, _ := decides.ids()
		if missing := difference(undecided, asked); len(missing) > 0 {
			return fmt.Sprintf("questions about %v", few(missing))
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	time.Sleep(2500 * time.Millisecond)
	if err := sameIDs(visible, seen.ids(), "visible messages"); err != nil {
		return "", err
	}
	asked, questions, wrong := decides.ids()
	if wrong != "" || seen.repeats() > 0 {
		return "", fmt.Errorf("%s, %d messages seen twice", wrong, seen.repeats())
	}
	if err := sameIDs(undecided, asked, "messages asked about"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d half messages: %d visible, %d rolled back, %d questions about %d undecided, settled in %.1f s",
		5*transactionEach, len(visible), 2*transactionEach, questions, len(undecided), took.Seconds()), nil
}
