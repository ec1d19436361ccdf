//! The items of a list and the fields of an object, one after the other.

use super::raw::Raw;
use super::scanner::Scanner;
use super::text::Surrogates;

impl<'a> Raw<'a> {
    /// Its items, if it is a list.
    pub(crate) fn items(self) -> Option<Items<'a>> {
        self.entries(b'[').map(Items)
    }

    /// Keys and values, if it is an object. A key may come twice.
    pub(crate) fn fields(self) -> Option<ObjectFields<'a>> {
        self.entries(b'{').map(ObjectFields)
    }

    fn entries(self, open: u8) -> Option<Entries<'a>> {
        let mut scanner = Scanner::new(self.as_bytes(), 0);
        scanner.pass(open).then_some(Entries {
            scanner,
            first: true,
            offset: self.at(),
        })
    }

    /// The values of these keys, if it is an object. Of a key that comes twice the last value counts; `null` counts as no value.
    pub(crate) fn pick<const N: usize>(self, keys: [&str; N]) -> Option<[Option<Raw<'a>>; N]> {
        let mut picked = [None; N];
        for (key, value) in self.fields()? {
            let is_key = |known: &&str| match key.plain() {
                Some(plain) => plain == known.as_bytes(),
                None => key
                    .text(Surrogates::Refuse)
                    .is_some_and(|text| text.is_ok_and(|text| text == **known)),
            };
            let place = keys.iter().position(is_key);
            if let Some(place) = place.and_then(|place| picked.get_mut(place)) {
                *place = (!value.is_null()).then_some(value);
            }
        }
        Some(picked)
    }
}

#[derive(Debug, Clone)]
struct Entries<'a> {
    scanner: Scanner<'a>,
    first: bool,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// Goes to the next entry; `None` at the end. No fault is expected: the grammar was checked when the value was read.
    fn next(&mut self, close: u8) -> Option<()> {
        let Self { scanner, first, .. } = self;
        scanner.has_another(first, close).ok()?.then_some(())
    }

    /// Turns a position in the list or object into one in the whole text.
    fn shifted(&self, raw: Raw<'a>) -> Raw<'a> {
        Raw::new(raw.as_bytes(), raw.at() + self.offset)
    }
}

/// The items of a list.
#[derive(Debug, Clone)]
pub(crate) struct Items<'a>(Entries<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(b']')?;
        let value = self.0.scanner.value().ok()?;
        Some(self.0.shifted(value))
    }
}

/// The keys and values of an object, in order.
#[derive(Debug, Clone)]
pub(crate) struct ObjectFields<'a>(Entries<'a>);

impl<'a> Iterator for ObjectFields<'a> {
    type Item = (Raw<'a>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(b'}')?;
        let key = self.0.scanner.key().ok()?;
        let value = self.0.scanner.value().ok()?;
        Some((self.0.shifted(key), self.0.shifted(value)))
    }
}
