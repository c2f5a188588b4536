package interop.survive;

import java.util.concurrent.atomic.AtomicLong;

/** Counts what was done, in all and since the broker was last started. */
final class Tally {
    private final String what;
    private final int least;
    private final AtomicLong total = new AtomicLong();
    private long begin;
    private long lowest = Long.MAX_VALUE;

    /** @param least fewer than these between two kills, and the run says nothing */
    Tally(String what, int least) {
        this.what = what;
        this.least = least;
    }

    String what() {
        return what;
    }

    void add() {
        total.incrementAndGet();
    }

    void begin() {
        begin = total.get();
    }

    private long since() {
        return total.get() - begin;
    }

    boolean enough() {
        return since() >= least;
    }

    /** The broker is about to be killed, or was. */
    void end() {
        lowest = Math.min(lowest, since());
    }

    @Override
    public String toString() {
        return String.format("%d %s (%d or more between kills, %d demanded)", total.get(), what, lowest, least);
    }
}
