//! How much each caller may ask for.

use crate::support::{gateway::Place, wait_for};

const OTHER: &str = "key-of-another-caller";

#[test]
fn a_caller_who_sends_too_much_is_told_what_is_left_and_disturbs_nobody_else() {
    let place = Place::new()
        .set("limits.requests_per_second", "1")
        .set("limits.burst", "3")
        .caller("other", OTHER, "permissions = []\nprojects = [\"*\"]");
    let gateway = place.start();
    let caller = gateway.client();
    let header = |name: &str, of: &crate::support::http::Answer| of.header(name).map(str::to_owned);
    for left in [2, 1, 0] {
        let answer = caller.get("/whoami");
        assert_eq!(answer.status, 200, "{answer:?}");
        let policy = header("ratelimit-policy", &answer);
        assert_eq!(policy.as_deref(), Some("\"caller\";q=3;w=3"));
        let shown = header("ratelimit", &answer).expect("what is left");
        assert!(
            shown.starts_with(&format!("\"caller\";r={left};t=")),
            "{shown}"
        );
    }
    let refused = wait_for("a refusal", || {
        let path = "/tasks/191297407830872?force=pause";
        let answer = caller.delete(path);
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.problem(), "rate-limited");
    assert_eq!(refused.json()["sent"], "no");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let shown = header("ratelimit", &refused).expect("what is left");
    assert!(shown.starts_with("\"caller\";r=0;"), "{shown}");
    // Others are not counted with it, and neither are strangers and probes.
    assert_eq!(
        gateway.client_with(OTHER).get("/whoami").status,
        200,
        "another caller"
    );
    for _ in 0..5 {
        let stranger = gateway.stranger().get("/whoami");
        assert_eq!(
            (stranger.status, header("ratelimit", &stranger)),
            (401, None)
        );
        let probe = caller.get("/readyz");
        assert_eq!((probe.status, header("ratelimit", &probe)), (200, None));
    }
    wait_for("the bucket to fill", || {
        (caller.get("/whoami").status == 200).then_some(())
    });
    assert!(place.cloud.requests().is_empty());
}
