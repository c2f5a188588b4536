package interop.survive;

import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;

/** One feature of the broker, worked all the time while the broker is killed and started again, and judged afterwards. */
abstract class Feature {
    private static final int PAUSE_AFTER_FAILURE_MILLIS = 100;
    private static final int SHOWN = 5;

    private final String name;
    private final List<Tally> tallies = new ArrayList<>();
    private final List<Thread> workers = new ArrayList<>();
    private final Queue<String> wrong = new ConcurrentLinkedQueue<>();
    private volatile boolean working = true;

    Feature(String name) {
        this.name = name;
    }

    interface Step {
        void run() throws Exception;
    }

    /** Begins to work; the broker is there. */
    abstract void start() throws Exception;

    /** The broker was killed. */
    void killed() {
    }

    /** The broker is there again. */
    void restarted() throws Exception {
    }

    /** Whether everything that must happen has happened; asked after the last kill, until it holds. */
    abstract boolean settled() throws Exception;

    /** Notes by {@link #require} what is wrong; returns what was seen. */
    abstract String judge() throws Exception;

    final String name() {
        return name;
    }

    final List<Tally> tallies() {
        return tallies;
    }

    final Queue<String> wrong() {
        return wrong;
    }

    final Tally tally(String what, int least) {
        Tally tally = new Tally(what, least);
        tallies.add(tally);
        return tally;
    }

    /** Runs the step again and again. That it fails is no error: the broker may be dead. */
    final void repeat(int pauseMillis, Step step) {
        Thread thread = new Thread(() -> {
            while (working) {
                try {
                    step.run();
                    Thread.sleep(pauseMillis);
                } catch (InterruptedException stopped) {
                    return;
                } catch (Exception failed) {
                    pause();
                }
            }
        }, "work-" + name);
        thread.setDaemon(true);
        thread.start();
        workers.add(thread);
    }

    private static void pause() {
        try {
            Thread.sleep(PAUSE_AFTER_FAILURE_MILLIS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    /** Ends the work; what is under way is waited for. */
    final void rest() throws InterruptedException {
        working = false;
        for (Thread worker : workers) {
            worker.join();
        }
    }

    final void require(boolean holds, String format, Object... values) {
        if (!holds) {
            wrong.add(String.format(format, values));
        }
    }

    /** Whatever was acknowledged must be there, and nothing that was never tried. */
    final void requireBetween(Set<String> least, Set<String> seen, Set<String> most, String what) {
        Set<String> missing = new TreeSet<>(least);
        missing.removeAll(seen);
        require(missing.isEmpty(), "%d %s missing: %s", missing.size(), what, few(missing));
        Set<String> unknown = new TreeSet<>(seen);
        unknown.removeAll(most);
        require(unknown.isEmpty(), "%d %s that must not be: %s", unknown.size(), what, few(unknown));
    }

    static String few(Iterable<?> values) {
        List<String> shown = new ArrayList<>();
        for (Object value : values) {
            if (shown.size() == SHOWN) {
                shown.add("...");
                break;
            }
            shown.add(value.toString());
        }
        return shown.toString();
    }

    final String counts() {
        return tallies.stream().map(Tally::toString).collect(Collectors.joining(", "));
    }
}
