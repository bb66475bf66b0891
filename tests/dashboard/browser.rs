//! The dashboard in Chromium: nothing of a mail runs or connects, the pages are accessible, and they work with and without JavaScript.
//!
//! The checks run in Chromium, some with axe-core. `tests/dashboard/browser/run.js` drives both.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Html;
use axum::routing::{get, post};
use postrider::dashboard::{Access, Dashboard};
use postrider::transport::Attachment;
use postrider::{DeliveryId, Email, Filter, MemoryStore, Outbox, State as DeliveryState};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::canary::Canary;
use crate::fixture::{email, mail};
use crate::hostile::{self, TEXTS};
use crate::sample_outbox::build;
use crate::site::Site;

/// The HTML of hostile mails. `CANARY` is the address of a server that must get no connection.
const HTML: [&str; 54] = [
    "<script>pwned()</script>",
    "<script type=module>pwned()</script>",
    "<script src='CANARY/x.js'></script>",
    "<img src=x onerror=pwned()>",
    "<svg onload=pwned()></svg>",
    "<svg><script>pwned()</script></svg>",
    "<svg><animate onbegin=pwned() attributeName=x dur=1s></svg>",
    "<body onload=pwned()>",
    "<iframe src='javascript:parent.pwned()'></iframe>",
    "<iframe srcdoc='<script>parent.pwned()</script>'></iframe>",
    "<iframe srcdoc='<script>pwned()</script>'></iframe>",
    "<object data='data:text/html,<script>parent.pwned()</script>'></object>",
    "<details open ontoggle=pwned()>x</details>",
    "<input autofocus onfocus=pwned()>",
    "<video><source src=x onerror=pwned()></video>",
    "<audio src=x onerror=pwned()></audio>",
    "<style>@keyframes x{}</style><div style='animation:x 1s' onanimationstart=pwned()>x</div>",
    "<style>p{transition:color 1s}</style><p ontransitionrun=pwned() style='color:red'>x</p>",
    "<marquee onstart=pwned()>x</marquee>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=pwned()&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=pwned()>'>",
    "</iframe></body></html><script>top.pwned()</script>",
    "<img src='CANARY/img'>",
    "<img srcset='CANARY/srcset 1x'>",
    "<picture><source srcset='CANARY/picture'><img src=x></picture>",
    "<div style='background:url(CANARY/background)'>x</div>",
    "<ul style='list-style:url(CANARY/list)'><li>x</ul>",
    "<style>@import url(CANARY/import);</style>",
    "<style>@font-face{font-family:f;src:url(CANARY/font)}p{font-family:f}</style><p>x",
    "<style>p::before{content:url(CANARY/content)}</style><p>x",
    "<style>p{cursor:url(CANARY/cursor),auto}</style><p>x",
    "<link rel=stylesheet href='CANARY/stylesheet'>",
    "<link rel=preconnect href='CANARY'>",
    "<LINK REL=PRELOAD AS=image HREF='CANARY/preload'>",
    "<link rel=prefetch href='CANARY/prefetch'>",
    "<link rel=modulepreload href='CANARY/module'>",
    "<meta http-equiv=refresh content='0;url=CANARY/refresh'>",
    "<base href='CANARY/'><img src=relative.png>",
    "<iframe src='CANARY/iframe'></iframe>",
    "<object data='CANARY/object'></object>",
    "<embed src='CANARY/embed'>",
    "<video src='CANARY/video' autoplay muted></video>",
    "<video poster='CANARY/poster'></video>",
    "<audio src='CANARY/audio' autoplay></audio>",
    "<video><track default src='CANARY/track'></video>",
    "<input type=image src='CANARY/input'>",
    "<table background='CANARY/table'><tr><td>x</table>",
    "<svg><image href='CANARY/svg' width=9 height=9 /></svg>",
    "<svg><filter id=f><feImage href='CANARY/filter' /></filter><rect width=9 height=9 filter='url(#f)' /></svg>",
    "<frameset><frame src='CANARY/frame'></frameset>",
    "<form action='CANARY/form'><input name=a></form><script>document.forms[0].submit()</script>",
    "<script>fetch('CANARY/fetch')</script>",
    "<script>top.location='CANARY/top'</script>",
    "<script>navigator.sendBeacon('CANARY/beacon')</script>",
];

/// The same, but they need a click.
const CLICKS: [&str; 3] = [
    "<a href='CANARY/link' style='font-size:60px'>click</a>",
    "<a href='CANARY/blank' target=_blank style='font-size:60px' ping='CANARY/ping'>click</a>",
    "<a href='javascript:pwned()' style='font-size:60px'>click</a>",
];

/// A service that nests the dashboard, and serves the HTML of mails without any protection, as a control.
async fn serve(outbox: &Outbox<MemoryStore>, controls: Vec<String>, connections: Arc<AtomicUsize>) -> SocketAddr {
    let dashboard = Dashboard::new(outbox.clone())
        .access(|_| async { Access::operate().by("Ada") })
        .refresh_every(Duration::from_millis(200));
    let control =
        async |State(controls): State<Arc<Vec<String>>>, Path(number): Path<usize>| Html(controls[number].clone());
    let count = async |State(count): State<Arc<AtomicUsize>>| count.load(Ordering::SeqCst).to_string();
    let poke = async |State(outbox): State<Outbox<MemoryStore>>| outbox.enqueue(email()).await.unwrap().to_string();
    let app = Router::new()
        .nest_service("/admin/mail", dashboard.into_router())
        .merge(Router::new().route("/control/{number}", get(control)).with_state(Arc::new(controls)))
        .merge(Router::new().route("/connections", get(count)).with_state(connections))
        .merge(Router::new().route("/poke", post(poke)).with_state(outbox.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run scripts/test, which starts scripts/servers/chromium.sh"))
}

/// Runs a plan in Chromium.
async fn browse(mut plan: Value) -> Value {
    plan["executable"] = json!(variable("POSTRIDER_TEST_BROWSER"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dashboard/browser/run.js");
    let mut node = Command::new("node");
    node.arg(script).env("NODE_PATH", variable("POSTRIDER_TEST_BROWSER_NODE")).kill_on_drop(true);
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = node.stdin.take().unwrap();
    stdin.write_all(plan.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(500), node.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn array<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no {name}"))
}

/// A mail with this HTML, and with an inline image that would run a script.
fn hostile_mail(html: &str) -> Email {
    let image = "<svg xmlns='http://www.w3.org/2000/svg' onload='pwned()'><script>pwned()</script></svg>";
    let image = Attachment::inline("image", "image.svg", "image/svg+xml", image.as_bytes().to_vec()).unwrap();
    let html = format!("{html}<img src='cid:image'>");
    mail().html(html).attach(image).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium"]
async fn nothing_of_a_mail_runs_or_connects_in_chromium() {
    let site = Site::new();
    // Its address goes into the mails, so the canary is there first.
    let victim = site.enqueue(email()).await;
    let canary = Canary::start(SocketAddr::from(([127, 0, 0, 1], 9)), victim).await;
    let filled = |html: &str| html.replace("CANARY", &canary.url());
    let mut controls: Vec<String> = HTML.iter().chain(&CLICKS).map(|html| filled(html)).collect();
    // A frame like that of the dashboard, but with scripts: it shows that the driver would notice a script in a frame.
    controls.push("<iframe class=mail sandbox=allow-scripts srcdoc='<script>pwned()</script>'></iframe>".to_owned());
    let address = serve(&site.outbox, controls.clone(), canary.counter()).await;

    let (mut messages, mut frames, mut clicks, mut pages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let path = |id: DeliveryId, end: &str| format!("http://{address}/admin/mail/deliveries/{id}{end}");
    for html in HTML {
        let id = site.enqueue(hostile_mail(&filled(html))).await;
        messages.push(path(id, "/message"));
        // Also opened by itself, outside of the frame of the page.
        frames.push(path(id, "/message.html"));
    }
    for html in CLICKS {
        clicks.push(path(site.enqueue(mail().html(filled(html)).build().unwrap()).await, "/message"));
    }
    for text in TEXTS {
        let id = hostile::plant(&site, text).await;
        hostile::fail(&site, text).await;
        hostile::act(&site, text, id).await;
        let filtered =
            |start: &str, names: &[&str]| format!("http://{address}/admin/mail/{start}{}", hostile::query(names, text));
        pages.extend([
            filtered("bulk/resend?state=cancelled&", &["subject"]),
            filtered("pauses?", &["kind", "name", "done"]),
            filtered("audit?", &["operator"]),
            filtered("audit?", &["action", "id"]),
            path(id, "/message?show=structure"),
            path(id, ""),
            path(id, "/message?show=text"),
            path(id, "/message?show=source"),
            path(id, "/message?show=html"),
        ]);
    }
    for page in ["deliveries?state=cancelled", "overview", "pauses", "audit", "bulk/resend?state=cancelled"] {
        pages.push(format!("http://{address}/admin/mail/{page}"));
    }

    let count = format!("http://{address}/connections");
    let result = browse(json!({ "count": count, "messages": messages, "clicks": clicks, "pages": pages })).await;
    let framed = browse(json!({ "count": count, "messages": frames })).await;
    let all =
        [array(&result, "messages"), array(&result, "clicks"), array(&result, "pages"), array(&framed, "messages")];
    let all: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(all.len(), 2 * HTML.len() + CLICKS.len() + 9 * TEXTS.len() + 5);
    let connected: Vec<_> = all.iter().filter(|case| case["connections"] != 0).collect();
    let requests = canary.requests();
    assert_eq!(canary.connections(), 0, "Chromium connected: {requests:?}, for {connected:#?}");
    for case in &all {
        assert_eq!(case["pwned"], 0, "a script ran: {case}");
        assert_eq!(case["errors"], json!([]), "a script ran or the page's own failed: {case}");
        assert_eq!(case["at"], case["url"], "the page was left");
    }
    assert!(array(&result, "messages").iter().all(|case| case["frames"].as_u64().unwrap() >= 2), "no frame was loaded");

    // The control: without protection, nearly all of them run or connect.
    let urls: Vec<_> = (0..controls.len()).map(|number| format!("http://{address}/control/{number}")).collect();
    let result = browse(json!({ "count": count, "control": urls })).await;
    let requests = canary.requests();
    let acted = |(number, case): &(usize, &Value)| {
        // A case that only opens a connection has no path, and does not count.
        let path = controls[*number].split(&canary.url()).nth(1).and_then(|rest| rest.split(['\'', ')', ' ']).next());
        let path = path.filter(|path| path.len() > 1);
        case["pwned"].as_u64().unwrap() > 0 || path.is_some_and(|path| requests.iter().any(|line| line.contains(path)))
    };
    let cases: Vec<_> = array(&result, "control").iter().enumerate().collect();
    let effective = cases.iter().filter(|case| acted(case)).count();
    let idle: Vec<_> = cases.iter().filter(|case| !acted(case)).map(|(number, _)| &controls[*number]).collect();
    assert!(effective >= 40, "only {effective} cases do something without protection; these do not: {idle:#?}");
    assert!(acted(cases.last().unwrap()), "the driver does not notice a script in a frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium"]
async fn the_pages_work_in_chromium_with_and_without_javascript() {
    let site = Site::new();
    let victim = site.enqueue(email()).await;
    let address = serve(&site.outbox, Vec::new(), Arc::default()).await;
    let canary = Canary::start(address, victim).await;
    let base = format!("http://{address}/admin/mail");
    // A host without HTTPS that is not this machine: Chromium sends no Sec-Fetch-Site, and Origin alone shows where a form comes from.
    let insecure = format!("http://ops.example:{}/admin/mail", address.port());
    let (first, second) = (site.enqueue(email()).await, site.enqueue(email()).await);
    let plan = json!({
        "base": base,
        "evil": canary.url(),
        "victim": victim.to_string(),
        "poke": format!("http://{address}/poke"),
        "keyboard": true,
        "cancel": [{ "base": base, "id": first.to_string() }, { "base": format!("{insecure}/"), "id": second.to_string() }],
    });
    let mut plan = plan;
    plan["bulk"] = json!(format!("{base}/bulk/cancel?state=pending&subject=Bulk"));
    let bulk = |count| (0..count).map(|_| mail().subject("Bulk").build().unwrap());
    site.outbox.enqueue_all(bulk(8_600)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let result = browse(plan).await;
    let state = async |id| site.outbox.get(id).await.unwrap().unwrap().state;

    for (case, id) in array(&result, "cancel").iter().zip([first, second]) {
        assert!(case["text"].as_str().unwrap().contains("The delivery is cancelled."), "{case}");
        assert_eq!(state(id).await, DeliveryState::Cancelled, "{case}");
    }
    let attack = &result["attack"];
    assert!(attack["forged"]["at"].as_str().unwrap().ends_with("/cancel"), "the form was not sent: {attack}");
    assert!(attack["forged"]["text"].as_str().unwrap().contains("does not come from the dashboard"), "{attack}");
    assert_eq!(state(victim).await, DeliveryState::Pending);
    let embedded = array(attack, "embedded");
    assert!(
        embedded.iter().all(|url| !url.as_str().unwrap().contains("/admin/mail")),
        "another site shows a page: {attack}"
    );

    let live = &result["live"];
    for shown in ["shown", "shownAfterHidden", "shownAfterSelected", "shownAfterStopped"] {
        assert_eq!(live[shown], true, "{shown}: {live}");
    }
    for not in ["shownWhileHidden", "shownWhileSelected", "shownWhileStopped"] {
        assert_eq!(live[not], false, "{not}: {live}");
    }
    assert_eq!(live["requestsWhileHidden"], 0, "{live}");
    assert_eq!(live["errors"], json!([]), "{live}");
    // A change of 8,600 deliveries takes at least five requests. Without JavaScript, each needs a press of a button. With it, the change goes on
    // by itself until it is stopped, and again after a press of "Continue".
    let bulk = &result["bulk"];
    for step in ["withoutScript", "stopped"] {
        assert!(bulk[step].as_str().unwrap().contains("cancelled so far"), "{step}: {bulk}");
    }
    assert!(bulk["stopped"].as_str().unwrap().contains("Press “Continue”"), "{bulk}");
    assert_eq!(bulk["requestsWhileStopped"], 0, "{bulk}");
    assert!(bulk["over"].as_str().unwrap().contains("Done: "), "{bulk}");
    assert_eq!((&bulk["errors"], &bulk["violations"]), (&json!([]), &json!([])), "{bulk}");
    let cancelled = Filter::new().subject_prefix("Bulk").state(DeliveryState::Cancelled).limit(10_000);
    assert_eq!(site.outbox.count(&cancelled).await.unwrap(), 8_600);
    let keyboard = &result["keyboard"];
    assert_eq!(keyboard["first"], "Skip to the content");
    assert_eq!(
        (&keyboard["isVisible"], &keyboard["skipped"], &keyboard["withoutOutline"]),
        (&json!(true), &json!("main"), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium"]
async fn the_pages_are_accessible() {
    let site = Site::new();
    let (dead, full) = build(&site).await;
    let address = serve(&site.outbox, Vec::new(), Arc::default()).await;
    let url = |path: &str| format!("http://{address}/admin/mail/{path}");
    let urls = [
        url("overview"),
        url("deliveries"),
        url("deliveries?state=dead&to=%40example.com"),
        url("deliveries?to=grace%40example.org"),
        url("deliveries?since=yesterday"),
        url(&format!("deliveries/{dead}")),
        url(&format!("deliveries/{full}?done=unchanged")),
        url(&format!("deliveries/{dead}/resend")),
        url(&format!("deliveries/{full}/message")),
        url(&format!("deliveries/{full}/message?show=source")),
        url(&format!("deliveries/{full}/message?show=structure")),
        url("deliveries?state=dead"),
        url("bulk/resend?state=dead&to=%40example.com"),
        url("bulk/resend?state=dead&to=nobody%40example.com"),
        url("bulk/resend"),
        url("pauses?done=paused"),
        url("audit"),
        url("audit?id=1&action=x"),
        url("nothing"),
    ];
    let mut plan = json!({ "accessibility": urls });
    // `POSTRIDER_PICTURES=docs/dashboard` writes the pictures of the manual.
    if let Ok(directory) = std::env::var("POSTRIDER_PICTURES") {
        let picture = |name: &str, url: String, theme: &str, phone: bool| json!({ "name": name, "url": url, "theme": theme, "phone": phone });
        plan["directory"] = json!(directory);
        plan["pictures"] = json!([
            picture("overview", url("overview"), "light", false),
            picture("deliveries", url("deliveries?to=%40example.com"), "light", false),
            picture("delivery", url(&format!("deliveries/{dead}")), "light", false),
            picture("message", url(&format!("deliveries/{full}/message")), "light", false),
            picture("bulk", url("bulk/resend?state=dead&to=%40example.com"), "light", false),
            picture("pauses", url("pauses"), "light", false),
            picture("overview-dark", url("overview"), "dark", false),
            picture("delivery-phone", url(&format!("deliveries/{dead}")), "dark", true),
        ]);
    }
    let result = browse(plan).await;
    let checked = array(&result, "accessibility");
    assert_eq!(checked.len(), 4 * urls.len());
    let violating: Vec<_> = checked.iter().filter(|page| page["violations"] != json!([])).collect();
    assert!(violating.is_empty(), "{violating:#?}");
    for page in checked {
        assert!(page["overflow"].as_i64().unwrap() <= 0, "the page is wider than the screen: {page}");
        assert!(page["passes"].as_u64().unwrap() > 10, "axe checked nothing: {page}");
    }
}
