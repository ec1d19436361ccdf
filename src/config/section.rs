//! What a dialect adds to the configuration: a section of each app, which only the dialect looks into. The caller that loads a
//! configuration hands in the list of these sections, so nothing here knows which dialects there are.

use std::any::Any;
use std::sync::Arc;

use super::table::Table;
use super::{Row, Secret, Settings};
use crate::names::DirectRoomIds;

/// The settings of a dialect's section, as one app has them.
pub(crate) trait Section: Settings {
    /// What a call is known by. No two apps may have the same.
    fn credentials(&self) -> Vec<Credential>;

    /// How direct rooms are called that messages make, if the dialect has a say in it.
    fn direct_room_ids(&self) -> Option<DirectRoomIds> {
        None
    }
}

/// A value by which an app is known.
pub(crate) struct Credential {
    /// What it competes with: only values of one kind can be confused.
    pub kind: &'static str,
    /// The key of its setting.
    pub key: &'static str,
    /// Itself, in the form in which it is compared.
    pub value: Secret,
}

impl Credential {
    /// A secret, which is compared as it is.
    pub(crate) fn secret(kind: &'static str, key: &'static str, secret: &Secret) -> Self {
        Self {
            kind,
            key,
            value: secret.clone(),
        }
    }
}

/// A section that an app may have.
#[derive(Debug)]
pub(crate) struct SectionKind {
    /// Its key in the app: `imkit` stands as `[apps.imkit]`.
    pub name: &'static str,
    /// What can stand in it.
    pub rows: fn() -> Vec<Row>,
    /// Secrets for it that this program's tests and load tests show to everybody, beside those of the example file.
    pub shown: &'static [&'static str],
    read: fn(Table<'_>) -> Option<Arc<dyn Section>>,
}

impl SectionKind {
    /// A section with the settings of `S`.
    pub(crate) const fn of<S: Section>(name: &'static str, shown: &'static [&'static str]) -> Self {
        Self {
            name,
            shown,
            rows: S::rows,
            read: |table| Some(Arc::new(S::read_all(table)?)),
        }
    }
}

/// The dialects' sections of one app, in the order of the list that they were read by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sections(Vec<(&'static str, Arc<dyn Section>)>);

impl Sections {
    /// Takes those that are there out of an app's table.
    pub(super) fn read(table: &mut Table<'_>, kinds: &[&SectionKind]) -> Self {
        let mut found = Vec::new();
        for kind in kinds {
            let section = table.table(kind.name).and_then(kind.read);
            found.extend(section.map(|section| (kind.name, section)));
        }
        Self(found)
    }

    /// The section whose settings are an `S`.
    pub(crate) fn get<S: Section>(&self) -> Option<&S> {
        self.iter().find_map(|(_, section)| {
            let section: &dyn Any = section;
            section.downcast_ref()
        })
    }

    /// All of them with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &dyn Section)> {
        self.0.iter().map(|(name, section)| (*name, &**section))
    }
}
