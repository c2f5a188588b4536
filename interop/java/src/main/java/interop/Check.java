package interop;

/**
 * One named expectation on a broker.
 *
 * @param seconds hard limit of the whole check
 */
record Check(String name, int seconds, Body body) {

    @FunctionalInterface
    interface Body {
        /** Returns what was seen when the expectation holds; throws otherwise. */
        String run(World world) throws Exception;
    }

    /** The expectation does not hold. */
    static final class Failed extends RuntimeException {
        Failed(String why) {
            super(why);
        }
    }

    static void require(boolean holds, String format, Object... values) {
        if (!holds) {
            throw new Failed(String.format(format, values));
        }
    }

    static void same(Object expected, Object seen, String what) {
        require(expected.equals(seen), "%s: expected %s, saw %s", what, expected, seen);
    }
}
