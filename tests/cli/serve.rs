//! The command `serve`. The client is curl.

use std::process::Command;

use crate::tool::{Running, Tool, wait_until};

/// Starts `serve` on a free port, and returns its URL.
fn serve(tool: &Tool, args: &[&str]) -> (Running, String) {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
    all.extend(args);
    let mut running = tool.start(&all);
    let start = "the dashboard is at ";
    wait_until("the server is ready", || running.stdout().contains('\n') || running.try_wait().is_some());
    let line = running.stdout();
    let url = line.trim_end().strip_prefix(start).unwrap_or_else(|| panic!("{line}{}", running.stderr())).to_owned();
    (running, url)
}

/// Sends a request, and returns the status and the body.
fn curl(args: &[&str]) -> (String, String) {
    let base = ["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"];
    let output = Command::new("curl").args(base).args(args).output().expect("curl is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn without_a_password_it_serves_this_machine_by_its_own_names_alone() {
    let tool = Tool::new();
    let id = tool.enqueue(&["--subject", "A <b>subject</b>"]);
    let (running, url) = serve(&tool, &[]);
    let (status, page) = curl(&[&format!("{url}deliveries")]);
    assert_eq!(status, "200");
    assert!(page.contains(&id) && page.contains("A &#60;b&#62;subject&#60;/b&#62;"), "{page}");
    assert_eq!(curl(&["--location", &url]).0, "200");
    for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example"] {
        let (status, page) = curl(&["--header", &format!("Host: {host}"), &format!("{url}deliveries")]);
        assert_eq!(status, "403", "{host}");
        assert!(!page.contains(&id), "{host}");
    }
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    assert_eq!(curl(&[&format!("http://localhost:{port}/overview")]).0, "200");
    running.signal("TERM");
    let output = running.wait();
    assert_eq!(output.code, 0, "{}", output.stderr);
}

#[test]
fn with_a_password_every_request_needs_it() {
    let tool = Tool::new();
    tool.enqueue(&[]);
    tool.file("password", "correct horse\nsecond line\n");
    let (running, url) = serve(&tool, &["--password-file", "password"]);
    let page = format!("{url}overview");
    assert_eq!(curl(&[&page]).0, "401");
    for wrong in ["ada:", "ada:correct", "ada:correct horse\nsecond line", "correct horse:"] {
        assert_eq!(curl(&["--user", wrong, &page]).0, "401", "{wrong}");
    }
    let (status, body) = curl(&["--user", "Ada <A>:correct horse", &page]);
    assert_eq!(status, "200");
    assert!(body.contains("<bdi>Ada &#60;A&#62;</bdi>"), "{body}");
    // Behind a proxy, the host is any name.
    assert_eq!(curl(&["--user", "ada:correct horse", "--header", "Host: ops.example", &page]).0, "200");
    let (_, challenge) = curl(&["--head", &page]);
    assert!(challenge.contains("www-authenticate: Basic realm=\"postrider\""), "{challenge}");
    running.signal("INT");
    assert_eq!(running.wait().code, 0);
}

/// Finds a mail, looks at each page about it, and cancels it by its form and by nothing else.
fn a_mail_is_found_and_cancelled(tool: &Tool) {
    let id = tool.enqueue(&["--to", "carol@example.org", "--subject", "Grüße", "--text", "A text"]);
    tool.enqueue(&[]);
    let (_running, url) = serve(tool, &[]);
    let list = curl(&[&format!("{url}deliveries?to=carol%40example.org&state=pending&since=1h&order=oldest")]).1;
    assert!(list.contains("1 found.") && list.contains(&id) && list.contains("Grüße"), "{list}");
    let overview = curl(&[&format!("{url}overview")]).1;
    assert!(overview.contains("No relay is running") && overview.contains("2 pending, the oldest for"), "{overview}");
    let page = curl(&[&format!("{url}deliveries/{id}/message?show=source")]).1;
    assert!(page.contains("A text") && page.contains("carol@example.org"), "{page}");

    let path = format!("{url}deliveries/{id}/cancel");
    let jar = tool.directory().join("cookies").display().to_string();
    let (_, page) = curl(&["--cookie-jar", &jar, &path]);
    let field =
        |name: &str| page.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap();
    let form = format!("csrf={}&seen={}", field("csrf"), field("seen"));
    let origin = format!("Origin: {}", url.trim_end_matches('/'));
    assert_eq!(curl(&["--cookie", &jar, "--data", &form, &path]).0, "403");
    assert_eq!(curl(&["--header", &origin, "--data", &form, &path]).0, "403");
    assert_eq!(tool.show(&id)["state"], "pending");
    assert_eq!(curl(&["--cookie", &jar, "--header", &origin, "--data", &form, &path]).0, "303");
    assert_eq!(tool.show(&id)["state"], "cancelled");
    let page = curl(&[&format!("{url}deliveries/{id}")]).1;
    assert!(page.contains("<h3>Cancelled</h3>"), "{page}");
    operators_act(tool, &url);
}

/// The hidden fields of the first form in `html` that posts, as arguments of curl.
fn fields(html: &str) -> Vec<String> {
    let form = html.split("<form method=\"post\"").nth(1).unwrap_or_else(|| panic!("no form: {html}"));
    let form = form.split("</form>").next().unwrap();
    let hidden = form.split("<input type=\"hidden\" name=\"").skip(1).map(|field| {
        let (name, rest) = field.split_once("\" value=\"").unwrap();
        format!("{name}={}", rest.split('"').next().unwrap().replace("&#38;", "&"))
    });
    hidden.flat_map(|pair| ["--data-urlencode".to_owned(), pair]).collect()
}

/// Pauses and resumes, cancels by a filter, and reads the audit trail.
fn operators_act(tool: &Tool, url: &str) {
    let jar = tool.directory().join("cookies").display().to_string();
    let origin = format!("Origin: {}", url.trim_end_matches('/'));
    let get = |path: &str| curl(&["--cookie", &jar, &format!("{url}{path}")]).1;
    let post = |path: &str, html: &str, filled: &[&str]| {
        let mut args: Vec<_> = fields(html);
        args.extend(filled.iter().flat_map(|pair| ["--data-urlencode".to_owned(), (*pair).to_owned()]));
        let url = format!("{url}{path}");
        let mut all = vec!["--cookie", &jar, "--header", &origin, &url];
        all.extend(args.iter().map(String::as_str));
        curl(&all)
    };
    let pauses = get("pauses");
    let new = pauses.split("<h2 id=\"new\">").nth(1).unwrap();
    assert_eq!(post("pauses/pause", new, &["kind=template", "name=Grüße & <b>", "note=wrong <i>price</i>"]).0, "303");
    let paused = tool.json(&["stats", "--json"])["pauses"][0].clone();
    assert_eq!((&paused["kind"], &paused["name"]), (&"template".into(), &"Grüße & <b>".into()));
    let pauses = get("pauses");
    assert!(pauses.contains("wrong &#60;i&#62;price") && pauses.contains("Grüße &#38; &#60;b&#62;"), "{pauses}");
    let current = pauses.split("id=\"pauses\"").nth(1).unwrap();
    assert_eq!(post("pauses/resume", current, &[]).0, "303");
    assert_eq!(tool.json(&["stats", "--json"])["pauses"], serde_json::json!([]));

    let ids: Vec<_> = (0..3).map(|_| tool.enqueue(&["--to", "ada@bulk.example"])).collect();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let confirmation = get("bulk/cancel?state=pending&to=%40bulk.example&since=1h");
    assert!(confirmation.contains("3 match"), "{confirmation}");
    let later = tool.enqueue(&["--to", "ada@bulk.example"]);
    let (status, done) = post("bulk/cancel", &confirmation, &["note=the shop is closed"]);
    assert_eq!(status, "200", "{done}");
    assert!(done.contains("Done: 3 cancelled."), "{done}");
    assert!(ids.iter().all(|id| tool.show(id)["state"] == "cancelled"));
    assert_eq!(tool.show(&later)["state"], "pending");
    let trail = get("audit?action=cancel");
    // A bulk change is one row.
    assert_eq!(trail.matches("the shop is closed").count(), 1, "{trail}");
    assert!(trail.contains("3 deliveries") && ids.iter().all(|id| trail.contains(id)), "{trail}");
    let timeline = get(&format!("deliveries/{}", ids[0]));
    assert!(timeline.contains("the shop is closed") && timeline.contains("by sam"), "{timeline}");
    assert!(get("audit?operator=sam&action=resume").contains("template Grüße &#38; &#60;b&#62;"));
}

#[test]
fn a_mail_is_found_and_cancelled_in_sqlite() {
    a_mail_is_found_and_cancelled(&Tool::new());
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
mod on_servers {
    use super::a_mail_is_found_and_cancelled;
    use crate::database_servers::{MySqlServer, pgbouncer, postgres};
    use crate::tool::Tool;

    fn run(tool: &Tool) {
        tool.ok(&["migrate"]);
        a_mail_is_found_and_cancelled(tool);
    }

    #[test]
    #[ignore = "needs PostgreSQL: run scripts/test"]
    fn on_postgres() {
        run(&postgres().0);
    }

    #[test]
    #[ignore = "needs PgBouncer: run scripts/test"]
    fn on_pgbouncer() {
        run(&pgbouncer());
    }

    #[test]
    #[ignore = "needs MariaDB: run scripts/test"]
    fn on_mariadb() {
        run(&MySqlServer::MariaDb.tool().0);
    }

    #[test]
    #[ignore = "needs MySQL: run scripts/test"]
    fn on_mysql() {
        run(&MySqlServer::MySql.tool().0);
    }
}

#[test]
fn read_only_and_hidden_bodies_are_obeyed() {
    let tool = Tool::new();
    let id = tool.enqueue(&["--text", "A secret text"]);
    let (_running, url) = serve(&tool, &["--read-only", "--hide-bodies"]);
    let (status, page) = curl(&[&format!("{url}deliveries/{id}")]);
    assert_eq!(status, "200");
    assert!(!page.contains("Cancel…") && !page.contains("Show the message") && page.contains("read only"), "{page}");
    let (status, page) = curl(&[&format!("{url}deliveries/{id}/message?show=text")]);
    assert_eq!(status, "403");
    assert!(!page.contains("A secret text"));
}

#[test]
fn a_public_address_needs_a_password() {
    let tool = Tool::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let output = tool.run(&["serve", "--listen", address]);
        assert_eq!(output.code, 2, "{address}: {}", output.stderr);
        assert!(output.stderr.contains("no password is set"), "{}", output.stderr);
    }
    let output = tool.run_with_env(&[("POSTRIDER_PASSWORD", "")], &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("the password is empty"), "{}", output.stderr);
    let output = tool.run(&["serve", "--password-file", "nothing"]);
    assert!(output.code == 1 && output.stderr.contains("cannot be read"), "{}", output.stderr);
    let output = Tool::without_tables().run(&["serve"]);
    assert!(output.code == 1 && output.stderr.contains("run `postrider migrate` first"), "{}", output.stderr);
}
