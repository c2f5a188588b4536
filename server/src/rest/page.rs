//! Lists in pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

const LIMIT: usize = 100;
const LIMIT_MOST: usize = 1_000;

/// Which page is wanted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Items of one page, 1 to 1000; 100 when not given.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// To be given as `cursor` for the next page; null behind the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// A limit from 1 to `most`. Fails with the field `limit`.
pub fn limit(limit: Option<usize>, usual: usize, most: usize) -> Result<usize> {
    match limit {
        None => Ok(usual),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => Err(Failure::invalid("limit", format!("limit: expected 1 to {most}, got {limit}"))),
    }
}

impl PageQuery {
    /// The page of `names`, which become sorted. The cursor is the last name of the page before, so that names that come
    /// and go meanwhile neither repeat nor hide others.
    pub fn pick(&self, mut names: Vec<String>) -> Result<(Vec<String>, Option<String>)> {
        let limit = limit(self.limit, LIMIT, LIMIT_MOST)?;
        names.sort_unstable();
        let from = self.cursor.as_ref().map_or(0, |last| names.partition_point(|name| name <= last));
        let rest = names.split_off(from);
        let more = rest.len() > limit;
        let page: Vec<String> = rest.into_iter().take(limit).collect();
        let next = if more { page.last().cloned() } else { None };
        Ok((page, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_neither_repeat_nor_hide() {
        let names = || ["c", "a", "e", "b", "d"].map(str::to_owned).to_vec();
        let query = |cursor: Option<String>| PageQuery { limit: Some(2), cursor };
        let (first, next) = query(None).pick(names()).unwrap();
        assert_eq!((first, next.as_deref()), (vec!["a".to_owned(), "b".to_owned()], Some("b")));
        let (second, next) = query(next).pick(names()).unwrap();
        assert_eq!(second, ["c", "d"]);
        let (third, next) = query(next).pick(names()).unwrap();
        assert_eq!((third, next), (vec!["e".to_owned()], None));
        assert!(PageQuery { limit: Some(0), cursor: None }.pick(names()).is_err());
    }
}
