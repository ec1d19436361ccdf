//! What a table of settings is made of: each setting is a row by a rule, and `settings!` makes a struct of a table's rows. The
//! rules themselves stand in `rules`.

use super::Secret;
use super::printer::Printer;
use super::table::Table;

/// A rule for a setting whose value is a `T`. It reports a wrong value to the table. It may still answer a value then, so that
/// the other settings can be checked.
pub(crate) trait Rule<T> {
    /// Takes the setting out of its table.
    fn read(&self, table: &mut Table<'_>, key: &str) -> Option<T>;

    /// Prints it as TOML, secrets masked.
    fn show(&self, printer: &mut Printer, key: &str, value: &T);

    /// The secrets in it, by the setting's key and their place in it.
    fn secrets<'a>(&self, _key: &str, _value: &'a T) -> Vec<(String, &'a Secret)> {
        Vec::new()
    }

    /// Describes the setting.
    fn row(&self, key: &'static str, help: String) -> Row;
}

/// A setting, for people and tests.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its key.
    pub key: &'static str,
    /// Its type, range and default.
    pub form: String,
    /// What it is.
    pub help: String,
    /// Whether it is a secret, which can also be read from a file: `<key>_file`.
    pub secret: bool,
    /// The settings that it consists of.
    pub parts: Vec<Row>,
}

/// The settings of one table, made by `settings!`.
pub(crate) trait Settings: std::any::Any + std::fmt::Debug + Send + Sync {
    /// What there is.
    fn rows() -> Vec<Row>
    where
        Self: Sized;

    /// Reads them. None: one of them is wrong and has nothing to take its place. The table has been told what is wrong.
    fn read(table: &mut Table<'_>) -> Option<Self>
    where
        Self: Sized;

    /// The same of a table that holds nothing else.
    fn read_all(mut table: Table<'_>) -> Option<Self>
    where
        Self: Sized,
    {
        let read = Self::read(&mut table);
        table.reject_unknown();
        read
    }

    /// Prints them as TOML, secrets masked.
    fn show(&self, printer: &mut Printer);

    /// The secrets among them, each with its key.
    fn secrets(&self) -> Vec<(String, &Secret)>;
}

/// Makes a struct whose fields are the settings of a table, each followed by its rule.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $help:literal])+ $field:ident: $type:ty = $rule:expr, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $( $(#[doc = $help])+ pub $field: $type, )+
        }

        impl $crate::config::schema::Settings for $name {
            fn rows() -> Vec<$crate::config::schema::Row> {
                use $crate::config::schema::Rule;
                vec![$( Rule::<$type>::row(
                    &$rule,
                    stringify!($field),
                    concat!($($help),+).trim().to_owned(),
                ) ),+]
            }

            fn read(table: &mut $crate::config::Table<'_>) -> Option<Self> {
                use $crate::config::schema::Rule;
                // Every setting is read, so that every problem is reported.
                $( let $field: Option<$type> = $rule.read(table, stringify!($field)); )+
                Some(Self { $( $field: $field?, )+ })
            }

            fn show(&self, printer: &mut $crate::config::Printer) {
                use $crate::config::schema::Rule;
                $( $rule.show(printer, stringify!($field), &self.$field); )+
            }

            fn secrets(&self) -> Vec<(String, &$crate::config::Secret)> {
                use $crate::config::schema::Rule;
                let mut all = Vec::new();
                $( all.extend($rule.secrets(stringify!($field), &self.$field)); )+
                all
            }
        }
    };
}
pub(crate) use settings;
