use std::ops::Range;

/// Which of `queues` queues belong to member `me` of `members`: as even as can be, in one piece.
///
/// Every member must find the same, whatever its language. Source: Apache RocketMQ `AllocateMessageQueueAveragely`.
pub(crate) fn averagely(queues: usize, members: usize, me: usize) -> Range<usize> {
    if members == 0 || me >= members {
        return 0..0;
    }
    let (each, left) = (queues / members, queues % members);
    let start = me * each + me.min(left);
    start..start + each + usize::from(me < left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_shared_as_java_shares_them() {
        let shares = |queues, members| (0..members).map(|me| averagely(queues, members, me)).collect::<Vec<_>>();
        assert_eq!(shares(8, 3), [0..3, 3..6, 6..8]);
        assert_eq!(shares(4, 4), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(shares(2, 4), [0..1, 1..2, 2..2, 2..2]);
        assert_eq!(averagely(4, 0, 0), 0..0);
    }
}
