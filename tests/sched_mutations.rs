//! Whether the tests of the scheduler's policy would find faults: each is built into a copy, of which the
//! tests are to fail as expected.
//!
//! The policy itself knows nothing of that. What it says is replaced as text, so that the code that is
//! tested is the code that runs, and a fault can be anywhere. A text that is not found, because the policy
//! has changed, is an error.
//!
//! It takes minutes: `cargo test --test sched_mutations -- --ignored`. With `MUTATION` in the environment, only
//! faults with that in their name are tried.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

struct Fault {
    name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    /// What is to be found in the output: a promise that was not kept, or a test that failed.
    caught_by: &'static str,
}

const fn fault(
    name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    caught_by: &'static str,
) -> Fault {
    Fault { name, file, old, new, caught_by }
}

const FAULTS: &[Fault] = &[
    fault(
        "a wake-up is lost",
        "queue.rs",
        "            self.queued.insert(group);\n",
        "",
        "GroupsAreServed",
    ),
    fault(
        "a thread runs twice",
        "queue.rs",
        "        self.length -= 1;\n        class.waited = 0;",
        "        class.fresh.push_back(thread);\n        class.waited = 0;",
        "OneAtATime",
    ),
    fault(
        "a thread is stolen twice",
        "queue.rs",
        "thief.push(thread);",
        "thief.push(thread);\n                    if thief.len() == 1 && take > 1 { thief.push(thread); }",
        "LegalStates",
    ),
    fault(
        "a stolen thread is lost",
        "queue.rs",
        "thief.push(thread);",
        "if take != 2 { thief.push(thread); }",
        "FirstInFirstOut",
    ),
    fault(
        "the last come is the first served",
        "queue.rs",
        ".fresh.push_back(thread);\n        self.note_push",
        ".fresh.push_front(thread);\n        self.note_push",
        "FirstInFirstOut",
    ),
    fault(
        "spent threads starve",
        "queue.rs",
        "class.due = class.neglected && waits;",
        "class.due = false;",
        "EverybodyRuns",
    ),
    fault(
        "threads that were cut short overtake the spent ones for ever",
        "queue.rs",
        "if class.cut_neglected {",
        "if false {",
        "EverybodyRuns",
    ),
    fault(
        "threads that are bound lose their place to a thief",
        "queue.rs",
        "line.prepend(kept);",
        "line.append(kept);",
        "a_theft_leaves_those_that_are_bound_where_they_were",
    ),
    fault(
        "threads wait where their group is not served",
        "queue.rs",
        "*waited >= STRANDED",
        "false",
        "a_thread_whose_group_is_served_elsewhere_is_fetched",
    ),
    fault(
        "a group keeps its credit while it sleeps",
        "shares.rs",
        "                g.virtual_time = g.virtual_time.max(average);\n",
        "",
        "FairShares",
    ),
    fault(
        "a group's debt is forgiven when it leaves",
        "shares.rs",
        "g.virtual_time = g.virtual_time.max(average);",
        "g.virtual_time = average;",
        "FairShares",
    ),
    fault(
        "a group that is owed nothing is not eligible",
        "shares.rs",
        "saturating_mul(weights) <= sum;",
        "saturating_mul(weights) < sum;",
        "a_group_that_has_exactly_its_share_is_eligible",
    ),
    fault(
        "those who are ahead are served",
        "shares.rs",
        "saturating_mul(weights) <= sum;",
        "saturating_mul(weights) >= sum;",
        "FairShares",
    ),
    fault(
        "what others are about to give is not counted",
        "shares.rs",
        "            ahead[lease.group.index()] += g.virtually(left);\n",
        "",
        "shares_follow_weights_in_every_tenth_of_a_second",
    ),
    fault(
        "weights do not matter",
        "shares.rs",
        "self.rate = (1 << FRACTION) / u64::from(policy.weight.max(1));",
        "self.rate = (1 << FRACTION) / 100;",
        "FairShares",
    ),
    fault(
        "deadlines are never renewed",
        "shares.rs",
        "if self.virtual_time >= self.deadline {",
        "if false {",
        "a_group_with_short_bursts_is_served_soon_among_heavy_ones",
    ),
    fault(
        "a lease never ends",
        "shares.rs",
        "left.clamp(least_term(self.slice), self.slice)",
        "u64::MAX",
        "GroupsAreServed",
    ),
    fault(
        "a lease is longer than the request",
        "shares.rs",
        "left.clamp(least_term(self.slice), self.slice)",
        "left.max(self.slice)",
        "a_heavy_group_does_not_wait_for_what_is_left_of_others",
    ),
    fault(
        "a short rest of a request goes before those who want little",
        "shares.rs",
        "if self.left() < least_term(slice)",
        "if self.left() < 0 * least_term(slice)",
        "a_short_rest_of_a_request_goes_behind_those_who_want_little",
    ),
    fault(
        "groups ask for a slice",
        "shares.rs",
        "(slice / 8 * 5)",
        "slice",
        "hogs_are_within_a_slice_of_their_shares_in_every_tenth_of_a_second",
    ),
    fault("a cap is ignored", "shares.rs", "if g.used < cap.quota {", "if true {", "Caps"),
    fault(
        "a throttled group is never released",
        "shares.rs",
        "if g.used < cap.quota {\n                self.release(group);",
        "if g.used < cap.quota {",
        "ThrottledForAReason",
    ),
    fault(
        "a new cap counts what was used before",
        "shares.rs",
        "(g.used, g.period_ends) = (0, 0);",
        "",
        "ThrottledForAReason",
    ),
    fault(
        "what is owed changes with the weight",
        "shares.rs",
        "abs_diff(average).saturating_mul(old) / g.weight();",
        "abs_diff(average);",
        "changing_a_weight_keeps_what_is_owed",
    ),
    fault(
        "what a group cannot use adds up",
        "shares.rs",
        "if self.leases.len() < 2 ||",
        "if true ||",
        "FairShares",
    ),
    fault(
        "nobody fetches what is owed",
        "shares.rs",
        "(owed > u128::from(self.slice)).then_some(group)",
        "(owed > u128::MAX / 2).then_some(group)",
        "a_worker_takes_over_what_another_cannot_serve_enough",
    ),
    fault(
        "service is counted only when a lease ends",
        "shares.rs",
        "            lease.counted = self.now;\n",
        "",
        "FairShares",
    ),
];

#[test]
#[ignore = "compiles the policy once for each fault"]
fn each_fault_is_caught() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations");
    let manifest = "[package]\nname = \"mutant\"\nedition = \"2024\"\n\
        [dev-dependencies]\nproptest = \"1\"\n[workspace]\n";
    let _ = fs::remove_dir_all(copy.join("src"));
    copy_tree(&root.join("src/sched"), &copy.join("src/sched"));
    fs::write(copy.join("Cargo.toml"), manifest).unwrap();
    fs::write(copy.join("src/lib.rs"), "#![allow(warnings)]\nmod sched;\n").unwrap();
    let _ = fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"));

    let (passed, output) = run_tests(&copy);
    assert!(passed, "without a fault:\n{output}");
    let wanted = std::env::var("MUTATION").unwrap_or_default();
    let mut missed = Vec::new();
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&wanted)) {
        let file = copy.join("src/sched").join(fault.file);
        let right = fs::read_to_string(&file).unwrap();
        assert_eq!(right.matches(fault.old).count(), 1, "{}: {:?}", fault.name, fault.old);
        fs::write(&file, right.replace(fault.old, fault.new)).unwrap();
        let (passed, output) = run_tests(&copy);
        fs::write(&file, right).unwrap();
        assert!(output.contains("running "), "{} does not compile:\n{output}", fault.name);
        let caught = !passed && output.contains(fault.caught_by);
        println!("{}: {}", fault.name, if caught { "caught" } else { "missed" });
        if !caught {
            missed.push(format!("{}, by {}:\n{output}", fault.name, fault.caught_by));
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

/// Whether all tests passed, and what they wrote. Those that a fault keeps from ending fail.
fn run_tests(copy: &Path) -> (bool, String) {
    let built = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--lib", "--no-run"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .output()
        .expect("cargo");
    let messages = String::from_utf8_lossy(&built.stderr).into_owned();
    let Some((_, binary)) = messages.rsplit_once("src/lib.rs (") else { return (false, messages) };
    let path = copy.join(binary.trim_end().trim_end_matches(')'));
    let log = copy.join("output");
    let mut tests = Command::new(path)
        .current_dir(copy)
        .stdout(fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .env("PROPTEST_CASES", "200")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
        .env("RUST_BACKTRACE", "0")
        .spawn()
        .expect("the tests");
    let mut status = None;
    for _ in 0..600 {
        status = tests.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    if status.is_none() {
        tests.kill().unwrap();
        tests.wait().unwrap();
    }
    let output = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    (status.is_some_and(|status| status.success()), output)
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
