//! The Lua scripts, as the program gives them to Redis.

use sha1::{Digest, Sha1};

/// The text of a script as the program gives it to Redis: behind each line `-- Lib:` stands what it names of `lua/lib/`.
pub fn text(name: &str) -> String {
    let read = |name: &str| {
        std::fs::read_to_string(format!("{}/lua/{name}.lua", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let mut text = String::new();
    for line in read(name).split_inclusive('\n') {
        text.push_str(line);
        if let Some(names) = line.trim().strip_prefix("-- Lib: ") {
            text.extend(names.split(", ").map(|name| read(&format!("lib/{name}"))));
        }
    }
    text
}

/// The digest by which `EVALSHA` calls that text.
pub fn digest(text: &str) -> String {
    let digest = Sha1::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All scripts: name and text.
pub fn all() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|ext| ext == "lua"));
    scripts
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .map(|name| (name.clone(), text(&name)))
        .collect()
}
