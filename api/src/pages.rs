//! Lists by pages: the parameters that all of them take, and the walk to a page by its number.

use herald_schemas::rows::Page;
use herald_store::StoreError;

use crate::fault::Faults;

/// Beyond this many, a page number costs too much, and a total is not counted out.
pub(crate) const DEEPEST: usize = 10_000;
/// How many are asked for at once to get somewhere.
pub(crate) const AT_ONCE: usize = 1_000;
pub(crate) const MOST_PER_PAGE: usize = 100;

/// A parameter that says something: none when it is left out or empty.
pub(crate) fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// A parameter, if it is given; one that does not parse is a fault.
pub(crate) fn read<T>(
    name: &str,
    text: Option<&str>,
    faults: &mut Faults,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = text.filter(|text| !text.is_empty())?;
    let value = parse(text);
    if value.is_none() {
        faults.add(name, format!("The selected {name} is invalid."));
    }
    value
}

/// How many a page shows: 25 unless said.
pub(crate) fn per_page(text: Option<&str>, faults: &mut Faults) -> usize {
    let within = |text: &str| {
        text.parse()
            .ok()
            .filter(|n| (1..=MOST_PER_PAGE).contains(n))
    };
    read("per_page", text, faults, within).unwrap_or(25)
}

/// Which page: the first unless said. Where pages are walked to, they do not go on for ever.
pub(crate) fn page(text: Option<&str>, per_page: usize, faults: &mut Faults) -> usize {
    let page = any_page(text, faults);
    if page.saturating_mul(per_page) > DEEPEST {
        let text = format!("Pages go to {DEEPEST}; beyond, follow meta.next_cursor.");
        faults.add("page", text);
    }
    page
}

/// Which page, of a list that is at hand.
pub(crate) fn any_page(text: Option<&str>, faults: &mut Faults) -> usize {
    let counted = |text: &str| {
        text.parse()
            .ok()
            .filter(|page| (1..=DEEPEST).contains(page))
    };
    read("page", text, faults, counted).unwrap_or(1)
}

/// A page of a list that is read with `some`, which answers so many beyond an id: behind the cursor
/// where there is one, else by its number, which is walked to.
pub(crate) async fn turn_to<Row, Id: Copy, Read>(
    cursor: Option<Id>,
    page: usize,
    per_page: usize,
    some: impl Fn(Option<Id>, usize) -> Read,
) -> Result<Page<Row, Id>, StoreError>
where
    Read: Future<Output = Result<Page<Row, Id>, StoreError>>,
{
    let mut past = cursor;
    let mut to_skip = match cursor {
        Some(_) => 0,
        None => (page - 1) * per_page,
    };
    while to_skip > 0 {
        let skipped = some(past, to_skip.min(AT_ONCE)).await?;
        if skipped.next.is_none() {
            return Ok(Page {
                items: Vec::new(),
                next: None,
            });
        }
        to_skip -= skipped.items.len();
        past = skipped.next;
    }
    some(past, per_page).await
}

/// How many there are of a list that is read with `some`, and whether there are more than that.
pub(crate) async fn count<Row, Id: Copy, Read>(
    some: impl Fn(Option<Id>, usize) -> Read,
) -> Result<(usize, bool), StoreError>
where
    Read: Future<Output = Result<Page<Row, Id>, StoreError>>,
{
    let (mut total, mut past) = (0, None);
    loop {
        let page = some(past, AT_ONCE).await?;
        total += page.items.len();
        past = page.next;
        if past.is_none() || total >= DEEPEST {
            return Ok((total, past.is_some()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Of the numbers below 2,500, from the highest down; at most 700 at once.
    async fn numbers(past: Option<u32>, most: usize) -> Result<Page<u32, u32>, StoreError> {
        let end = past.unwrap_or(2_500);
        let first = end.saturating_sub(most.min(700) as u32);
        Ok(Page {
            items: (first..end).rev().collect(),
            next: (first > 0).then_some(first),
        })
    }

    #[tokio::test]
    async fn a_page_is_walked_to_however_short_those_on_the_way_are() {
        let shown = async |cursor, page| {
            let page = turn_to(cursor, page, 100, numbers).await.unwrap();
            (page.items.first().copied(), page.next)
        };
        assert_eq!(shown(None, 1).await, (Some(2_499), Some(2_400)));
        assert_eq!(shown(None, 20).await, (Some(599), Some(500)));
        assert_eq!(shown(None, 25).await, (Some(99), None));
        for beyond in [26, 100] {
            assert_eq!(shown(None, beyond).await, (None, None), "{beyond}");
        }
        assert_eq!(shown(Some(300), 9).await, (Some(299), Some(200)));
    }

    #[tokio::test]
    async fn what_is_very_long_is_not_counted_out() {
        assert_eq!(count(numbers).await.unwrap(), (2_500, false));
        let calls = Cell::new(0);
        let endless = |_, most| {
            calls.set(calls.get() + 1);
            async move {
                Ok(Page {
                    items: vec![(); most],
                    next: Some(0),
                })
            }
        };
        assert_eq!(count(endless).await.unwrap(), (DEEPEST, true));
        assert_eq!(calls.get(), DEEPEST / AT_ONCE);
    }
}
