use super::*;

/// An allocator that remembers, for each thread, how much it has and the most that it has had.
mod counting {
    #![allow(unsafe_code, reason = "there is no other way to see every allocation")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    thread_local! {
        static HELD: Cell<isize> = const { Cell::new(0) };
        static MOST: Cell<isize> = const { Cell::new(0) };
    }

    fn add(bytes: isize) {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
        });
    }

    // SAFETY: everything is done by the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            add(layout.size() as isize);
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            add(-(layout.size() as isize));
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // Both are there for a moment.
            add(size as isize);
            add(-(layout.size() as isize));
            unsafe { System.realloc(pointer, layout, size) }
        }
    }

    /// The most that was held at once on top of what was held before, and what still is.
    pub(super) fn of<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
        let before = HELD.get();
        MOST.set(before);
        let done = work();
        let grown = |now: isize| usize::try_from(now - before).unwrap_or(0);
        (done, grown(MOST.get()), grown(HELD.get()))
    }
}

/// What is made of a body has at most six times its bytes, and half a KiB for each event; while it is made, at most twelve times.
#[test]
fn a_body_costs_a_small_multiple_of_its_bytes() {
    const BYTES: usize = 1 << 20;
    let filled = |begin: &str, piece: &str, end: &str| {
        let pieces = (BYTES - begin.len() - end.len()) / piece.len();
        let mut body = format!("{begin}{}", piece.repeat(pieces));
        if body.ends_with(',') && end.starts_with([']', '}']) {
            body.pop();
        }
        body + end
    };
    let numbered = |begin: &str, end: &str| {
        let mut body = begin.to_owned();
        for n in 0_u32.. {
            if body.len() > BYTES - 20 {
                break;
            }
            body.push_str(&format!("\"{n:x}\","));
        }
        body.pop();
        body + end
    };
    const MESSAGE: &str = r#"[{"type":"message.sent","room":"r","id":"1","#;
    let message = |rest: &str| format!("{MESSAGE}{rest}");
    let deleted = r#"{"type":"user.deleted","user":"u"},"#;
    let noted = |mentions: &str| {
        format!(r#"{{"type":"message.sent","room":"r","id":"1","mentions":{mentions}}}"#)
    };
    let long_names = format!(
        "[{}]",
        vec![format!("\"{}\\u0000\"", "\u{1f600}".repeat(32)); 10].join(",")
    );
    for (what, body, most) in [
        ("empty keys", filled("[", "{\"\":0},", "]"), 10_000),
        (
            "empty keys, all of them",
            filled("[", "{\"\":0},", "]"),
            1_000_000,
        ),
        (
            "empty objects, all of them",
            filled("[", "{},", "]"),
            1_000_000,
        ),
        ("short events", filled("[", deleted, "]"), 1_000_000),
        ("lists in lists", filled("[{\"x\":", "[", "]"), 10_000),
        (
            "a huge text",
            filled(&message("\"text\":\""), "x", "\"}]"),
            10_000,
        ),
        (
            "escapes",
            filled(&message("\"text\":\""), "\\n", "\"}]"),
            10_000,
        ),
        (
            "a huge id",
            filled("[{\"type\":\"room.deleted\",\"room\":\"", "x", "\"}]"),
            10_000,
        ),
        (
            "empty strings",
            filled(&message("\"mentions\":["), "\"\",", "]}]"),
            10_000,
        ),
        ("numbers", filled(&message("\"x\":["), "1,", "]}]"), 10_000),
        (
            "objects",
            filled(&message("\"x\":["), "{\"\":[]},", "]}]"),
            10_000,
        ),
        ("a long key", filled("[{\"", "k", "\":0}]"), 10_000),
        ("many keys", filled("[{", "\"\":0,", "\"type\":1}]"), 10_000),
        (
            "one mention",
            filled(&message("\"mentions\":["), "\"u\",", "]}]"),
            10_000,
        ),
        (
            "mentions",
            numbered(&message("\"mentions\":["), "]}]"),
            10_000,
        ),
        (
            "members",
            numbered(
                "[{\"type\":\"member.joined\",\"room\":\"r\",\"users\":[",
                "]}]",
            ),
            10_000,
        ),
        (
            "colours",
            filled(
                "[{\"type\":\"pref.updated\",\"room\":\"r\",\"user\":\"u\",\"tag_colors\":{",
                "\"\":\"\",",
                "}}]",
            ),
            10_000,
        ),
        (
            "notes",
            filled("[", &format!("{},", noted("[7,7,7,7,7,7,7,7,7,7,7]")), "]"),
            1_000_000,
        ),
        (
            "long notes",
            filled("[", &format!("{},", noted(&long_names)), "]"),
            1_000_000,
        ),
        ("lines", filled("", "{\n", ""), 1_000_000),
    ] {
        let form = if what == "lines" {
            BodyForm::Lines
        } else {
            BodyForm::Json
        };
        let (batch, peak, kept) = counting::of(|| read_all(body.as_bytes(), form, most));
        let events = batch.as_ref().map_or(most.min(10_000), Batch::len);
        let times = |bytes: usize| bytes.saturating_sub(512 * events) as f64 / body.len() as f64;
        println!(
            "{what}: {events} events, kept {:.1} times, at most {:.1} times",
            times(kept),
            times(peak)
        );
        assert!(
            times(kept) <= 6.0,
            "{what}: {kept} bytes of {events} events"
        );
        assert!(
            times(peak) <= 12.0,
            "{what}: {peak} bytes of {events} events"
        );
    }
}
