//! Numbers as text, short enough for columns.

use uthread::inspect::protocol::TimesRow;

/// A time: `870ns`, `12.3us`, `4.56ms`, `7.89s`, `12:34`, `5:06:07`, `3d04h`.
pub(crate) fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match ns {
        0 => "0".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", three_digits(ns as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{}ms", three_digits(ns as f64 / 1e6)),
        1_000_000_000..60_000_000_000 => format!("{}s", three_digits(ns as f64 / 1e9)),
        _ if seconds < 3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => {
            format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
        }
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A count: `950`, `12.3k`, `4.56M`.
pub(crate) fn count(n: u64) -> String {
    scaled(n as f64, 1e3, ["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes: `512B`, `4.00K`, `1.25M`.
pub(crate) fn bytes(n: usize) -> String {
    scaled(n as f64, 1024.0, ["B", "K", "M", "G", "T", "P", "E"])
}

/// A part of one: `0.0`, `99.5`, `100`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 99.95 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// A number with its thousands set apart: `100,000`.
pub(crate) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What times are of: `run delay`, `op recv`.
pub(crate) fn label(times: &TimesRow) -> String {
    match &times.op {
        Some(op) => format!("op {}", clean(op)),
        None => clean(&times.name.replace('_', " ")),
    }
}

/// A text of another's making, for a line of a terminal: no control characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn scaled(n: f64, base: f64, units: [&str; 7]) -> String {
    let mut n = n;
    let mut units = units.into_iter();
    let first = units.next().unwrap_or_default();
    if n < base {
        return format!("{n}{first}");
    }
    let mut unit = first;
    for next in units {
        // What would be written as 1000 is 1.00 of the next.
        if n < 999.5 {
            break;
        }
        n /= base;
        unit = next;
    }
    format!("{}{unit}", three_digits(n))
}

fn three_digits(n: f64) -> String {
    match n {
        ..9.995 => format!("{n:.2}"),
        ..99.95 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_up_to_a_minute() {
        let all = [0, 999, 1_000, 12_340, 456_700_000, 7_890_000_000, 59_900_000_000];
        let wanted = ["0", "999ns", "1.00us", "12.3us", "457ms", "7.89s", "59.9s"];
        assert_eq!(all.map(time), wanted);
    }

    #[test]
    fn longer_times_are_written_as_on_a_clock() {
        let second = 1_000_000_000;
        let all = [60, 754, 3_600, 18_367, 86_400, 273_600].map(|s| s * second);
        assert_eq!(all.map(time), ["1:00", "12:34", "1:00:00", "5:06:07", "1d00h", "3d04h"]);
    }

    #[test]
    fn counts_and_bytes_are_scaled() {
        assert_eq!(
            [0, 999, 1_000, 12_345, 4_560_000].map(count),
            ["0", "999", "1.00k", "12.3k", "4.56M"]
        );
        assert_eq!([999_499, 999_500].map(count), ["999k", "1.00M"]);
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!([0, 1023, 4096, 1 << 20].map(bytes), ["0B", "1023B", "4.00K", "1.00M"]);
    }

    #[test]
    fn shares_fit_into_four_characters() {
        assert_eq!(
            [0.0, 0.0004, 0.5, 0.9994, 0.9996, 1.0].map(percent),
            ["0.0", "0.0", "50.0", "99.9", "100", "100"]
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0, 999, 1_000, 100_236, 1_000_000].map(grouped),
            ["0", "999", "1,000", "100,236", "1,000,000"]
        );
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
