//! The text for Prometheus is what the format's definition asks for, and says what the figures say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uthread::{Builder, Group, Histogram, MetricKind, MetricValue, Runtime};

/// A line with a value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A metric and all its lines.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

impl Family {
    /// The samples of this name whose other labels are these.
    fn series<'a>(
        &'a self,
        name: &'a str,
        label: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &'a Sample> {
        let has_label = move |sample: &Sample| match label {
            None => sample.labels.keys().all(|key| key == "le"),
            Some((key, value)) => sample.labels.get(key).map(String::as_str) == Some(value),
        };
        self.samples.iter().filter(move |sample| sample.name == name && has_label(sample))
    }

    fn only(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let found: Vec<_> = self.series(name, label).collect();
        assert_eq!(found.len(), 1, "{name} {label:?}");
        found[0].value
    }
}

/// Takes a name off the beginning.
fn name<'a>(text: &mut &'a str, colons: bool) -> &'a str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || colons && c == ':';
    let (name, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    assert!(name.starts_with(|c: char| !c.is_ascii_digit()), "no name: {text:?}");
    *text = rest;
    name
}

/// Takes a quoted label value off the beginning, and its escapes out of it.
fn quoted(text: &mut &str) -> String {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"').expect("a quotation mark").char_indices();
    loop {
        match chars.next().expect("the quotation ends") {
            (_, '\\') => match chars.next().expect("something is escaped").1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                c => panic!("\\{c} means nothing"),
            },
            (at, '"') => {
                *text = &text[at + 2..];
                return value;
            }
            (_, c) => value.push(c),
        }
    }
}

fn sample(line: &str) -> Sample {
    let mut rest = line;
    let name = name(&mut rest, true).to_owned();
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let key = self::name(&mut rest, false).to_owned();
            rest = rest.strip_prefix('=').expect("a label's value");
            assert_eq!(labels.insert(key, quoted(&mut rest)), None, "twice in {line}");
            match rest.split_at(1) {
                (",", next) => rest = next,
                ("}", next) => break rest = next,
                _ => panic!("after a label: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("one space");
    Sample { name, labels, value: value.parse().expect("a number and nothing else") }
}

/// Reads the text, and panics at whatever it should not be.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut present = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a text");
            present = name.to_owned();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(present.clone(), family).is_none(), "{name} comes twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, present, "the type of another metric");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "a late type: {name}");
            family.kind = kind.to_owned();
        } else {
            assert!(!line.starts_with('#'), "a comment: {line}");
            let sample = sample(line);
            let family = families.get_mut(&present).expect("no sample before its type");
            let suffix = sample.name.strip_prefix(&present).expect("a sample of another metric");
            let allowed: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "counter" | "gauge" => &[""],
                kind => panic!("a metric of type {kind:?}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert_eq!(suffix == "_bucket", sample.labels.contains_key("le"), "{line}");
            family.samples.push(sample);
        }
    }
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.samples.is_empty(), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        let mut seen = BTreeSet::new();
        assert!(family.samples.iter().all(|s| seen.insert((&s.name, &s.labels))), "twice: {name}");
    }
    families
}

/// What the buckets say: bounds and how many are below, in the text's order.
fn buckets(family: &Family, name: &str, label: Option<(&str, &str)>) -> Vec<(f64, f64)> {
    let name = format!("{name}_bucket");
    family.series(&name, label).map(|s| (s.labels["le"].parse().unwrap(), s.value)).collect()
}

fn check_histogram(family: &Family, name: &str, label: Option<(&str, &str)>, times: &Histogram) {
    let buckets = buckets(family, name, label);
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
    let (bound, all) = buckets[buckets.len() - 1];
    assert!(bound == f64::INFINITY && all == times.count() as f64, "{name}");
    assert_eq!(family.only(&format!("{name}_count"), label), all);
    assert_eq!(family.only(&format!("{name}_sum"), label), times.sum().as_secs_f64());
    for (bound, below) in &buckets[..buckets.len() - 1] {
        let bound = Duration::from_secs_f64(*bound);
        let expected: u64 =
            times.buckets().filter(|(range, _)| range.end <= bound).map(|(_, n)| n).sum();
        assert_eq!(*below, expected as f64, "{name} up to {bound:?}");
    }
}

fn rested(runtime: &Runtime) -> uthread::Stats {
    let began = Instant::now();
    loop {
        let stats = runtime.stats();
        let is_over = stats.threads_live == 0 && stats.slice_length.count() == stats.switches;
        // And asleep for so long that its slots are in the pools.
        if is_over && stats == runtime.stats() && began.elapsed() > Duration::from_millis(200) {
            return stats;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no rest: {stats}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_runtime_at_rest_says_in_text_what_its_figures_say() {
    let odd = "a \"quoted\\\" name\nof two lines";
    let groups = [odd, "twice", "twice"].map(|n| Group::builder().name(n).build().unwrap());
    let runtime = Runtime::builder().workers(2).build().unwrap();
    for group in &groups {
        let work = || {
            uthread::yield_now();
            uthread::sleep(Duration::from_micros(100));
        };
        Builder::new().group(group).spawn_in(&runtime, work).unwrap().join().unwrap();
    }
    // Workers may wake up in between: what they do then is not to be compared.
    let (stats, workers, text) = loop {
        let stats = rested(&runtime);
        let (workers, text) = (runtime.workers(), runtime.prometheus());
        if runtime.stats() == stats {
            break (stats, workers, text);
        }
    };
    let families = read(&text);
    let mut expected = BTreeSet::new();
    for (metric, value) in stats.metrics() {
        let ending = if metric.kind == MetricKind::Counter { "_total" } else { "" };
        let name = format!("uthread_{}{ending}", metric.name);
        let family = families.get(&name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(family.help, metric.help);
        match value {
            MetricValue::Number(n) => {
                assert_eq!(family.only(&name, metric.label), n as f64, "{name}")
            }
            MetricValue::Time(time) => {
                assert_eq!(family.only(&name, metric.label), time.as_secs_f64(), "{name}")
            }
            MetricValue::Histogram(times) => check_histogram(family, &name, metric.label, times),
            value => panic!("{name}: {value:?}"),
        }
        expected.insert(name);
    }
    let turns = |group: &Group| runtime.group_stats(group).turns;
    let turns = [(odd, turns(&groups[0])), ("twice", turns(&groups[1]) + turns(&groups[2]))];
    for (name, turns) in turns {
        let label = Some(("group", name));
        let said = families["uthread_group_turns_total"].only("uthread_group_turns_total", label);
        assert_eq!(said, turns as f64);
    }
    let used = runtime.group_stats(&groups[0]);
    for (metric, value) in used.metrics() {
        let name = format!("uthread_{}_total", metric.name);
        let said = families[&name].only(&name, Some(("group", odd)));
        match value {
            MetricValue::Number(n) => assert_eq!(said, n as f64, "{name}"),
            MetricValue::Time(time) => assert_eq!(said, time.as_secs_f64(), "{name}"),
            value => panic!("{name}: {value:?}"),
        }
        expected.insert(name);
    }
    for worker in &workers {
        for (metric, value) in worker.metrics() {
            let ending = if metric.kind == MetricKind::Counter { "_total" } else { "" };
            let name = format!("uthread_{}{ending}", metric.name);
            let said = families[&name].only(&name, Some(("worker", &worker.index.to_string())));
            match value {
                MetricValue::Number(n) => assert_eq!(said, n as f64, "{name}"),
                MetricValue::Time(time) => assert_eq!(said, time.as_secs_f64(), "{name}"),
                value => panic!("{name}: {value:?}"),
            }
            expected.insert(name);
        }
    }
    assert!(families.keys().eq(&expected), "what else is there: {:?}", families.keys());
}

#[test]
fn a_runtime_that_works_is_described_as_well() {
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        uthread::scope(|s| {
            (0..4).for_each(|_| _ = s.spawn(|| (0..500).for_each(|_| uthread::yield_now())));
            for _ in 0..20 {
                let families = read(&uthread::prometheus());
                let times = &families["uthread_run_delay_seconds"];
                let buckets = buckets(times, "uthread_run_delay_seconds", None);
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
                uthread::yield_now();
            }
        });
    });
}

/// To be checked by `promtool check metrics`: `cargo test --features prometheus --test prometheus -- --ignored --nocapture`.
#[test]
#[ignore = "prints a text for other programs to check"]
fn a_text_to_be_checked_elsewhere() {
    let _group = Group::builder().name("a \"quoted\\\" name\nof two lines").build().unwrap();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| uthread::sleep(Duration::from_millis(1)));
    let path =
        std::env::var_os("UTHREAD_METRICS_FILE").expect("UTHREAD_METRICS_FILE says where to");
    std::fs::write(path, runtime.prometheus()).unwrap();
}
