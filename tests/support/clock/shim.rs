//! A realtime clock that a test can set. `LD_PRELOAD` puts this library into a process. There it adds to the realtime clock
//! as many microseconds as the file named by `TEST_CLOCK_FILE` holds (eight bytes in the machine's own order), read anew at
//! each look at the clock. Monotonic clocks stay true, so the process' own timers and time-outs go on as they were.
//!
//! `tests/support/clock.rs` compiles this file with `rustc` alone. The library allocates nothing and takes no lock, and a process
//! that forks keeps its clock. Waits that end at a moment of the realtime clock are not changed: `unread` has none, and Redis one, in
//! a thread of its allocator, which `RedisServer::by_clock` turns off.
#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe { abort() }
}

#[repr(C)]
pub struct Timespec {
    seconds: c_long,
    nanos: c_long,
}

#[repr(C)]
pub struct Timeval {
    seconds: c_long,
    micros: c_long,
}

#[repr(C)]
pub struct Timeb {
    seconds: c_long,
    millis: u16,
    zone: i16,
    summer: i16,
}

const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
const REALTIME_ALARM: c_int = 8;
const TAI: c_int = 11;
const TIME_UTC: c_int = 1;
const READ_ONLY: c_int = 0;
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;
const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;

#[link(name = "c")]
#[link(name = "dl")]
unsafe extern "C" {
    fn abort() -> !;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn close(file: c_int) -> c_int;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: c_long,
    ) -> *mut c_void;
}

type Look = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

/// The offset in microseconds, in the file's page; null where there is no file.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());
/// The C library's own `clock_gettime`.
static TRUE_LOOK: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Runs when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: unsafe extern "C" fn() = at_start;

unsafe extern "C" fn at_start() {
    unsafe {
        let name = getenv(c"TEST_CLOCK_FILE".as_ptr());
        if name.is_null() {
            return;
        }
        let file = open(name, READ_ONLY);
        if file < 0 {
            abort();
        }
        let page = mmap(null_mut(), 8, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if page as isize == -1 {
            abort();
        }
        OFFSET.store(page.cast(), Ordering::Release);
    }
}

fn offset() -> i64 {
    let page = OFFSET.load(Ordering::Acquire);
    if page.is_null() {
        return 0;
    }
    unsafe { (*page).load(Ordering::Relaxed) }
}

unsafe fn look(clock: c_int, at: *mut Timespec) -> c_int {
    unsafe {
        let mut found = TRUE_LOOK.load(Ordering::Acquire);
        if found.is_null() {
            found = dlsym(RTLD_NEXT, c"clock_gettime".as_ptr());
            if found.is_null() {
                abort();
            }
            TRUE_LOOK.store(found, Ordering::Release);
        }
        transmute::<*mut c_void, Look>(found)(clock, at)
    }
}

/// Microseconds since the epoch, as the process is to believe, and the nanoseconds below them.
fn now(clock: c_int) -> (i64, c_long) {
    let mut at = Timespec {
        seconds: 0,
        nanos: 0,
    };
    unsafe { look(clock, &raw mut at) };
    let micros = i64::from(at.seconds) * 1_000_000 + i64::from(at.nanos) / 1_000;
    (micros + offset(), at.nanos % 1_000)
}

fn split(micros: i64) -> (c_long, c_long) {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    (seconds as c_long, rest as c_long)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, at: *mut Timespec) -> c_int {
    unsafe {
        if at.is_null() || !matches!(clock, REALTIME | REALTIME_COARSE | REALTIME_ALARM | TAI) {
            return look(clock, at);
        }
        let (micros, nanos) = now(clock);
        let (seconds, rest) = split(micros);
        (*at).seconds = seconds;
        (*at).nanos = rest * 1_000 + nanos;
        0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut Timeval, _zone: *mut c_void) -> c_int {
    let (seconds, micros) = split(now(REALTIME).0);
    if let Some(at) = unsafe { at.as_mut() } {
        (at.seconds, at.micros) = (seconds, micros);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut c_long) -> c_long {
    let (seconds, _) = split(now(REALTIME).0);
    if let Some(at) = unsafe { at.as_mut() } {
        *at = seconds;
    }
    seconds
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftime(at: *mut Timeb) -> c_int {
    let (seconds, micros) = split(now(REALTIME).0);
    if let Some(at) = unsafe { at.as_mut() } {
        *at = Timeb {
            seconds,
            millis: (micros / 1_000) as u16,
            zone: 0,
            summer: 0,
        };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timespec_get(at: *mut Timespec, base: c_int) -> c_int {
    if base != TIME_UTC {
        return 0;
    }
    unsafe { clock_gettime(REALTIME, at) };
    base
}
