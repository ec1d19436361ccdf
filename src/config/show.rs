//! Prints a configuration as the TOML that would give it, with every secret masked.

use super::Config;
use super::printer::Printer;
use super::schema::Settings;

/// The configuration as TOML, defaults filled in and secrets shown as `****`.
pub(crate) fn effective(config: &Config) -> String {
    let mut printer = Printer::new();
    let sections: [(&str, &dyn Settings); 5] = [
        ("[server]", &config.server),
        ("[redis]", &config.redis),
        ("[history]", &config.history),
        ("[live]", &config.live),
        ("[log]", &config.log),
    ];
    for (head, section) in sections {
        printer.head(head);
        section.show(&mut printer);
    }
    for app in &config.apps {
        printer.head("[[apps]]");
        app.own().show(&mut printer);
        printer.head("[apps.users]");
        app.users.show(&mut printer);
        for (name, section) in app.dialects.iter() {
            printer.head(&format!("[apps.{name}]"));
            section.show(&mut printer);
        }
    }
    printer.into_text()
}
