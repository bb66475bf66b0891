//! Lists: filters in the URL, pages, and the search field.

use std::collections::HashSet;
use std::time::Duration;

use axum::http::StatusCode;
use postrider::dashboard::Dashboard;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Refusal};
use postrider::{Email, Outbox};

use crate::fixture::{email, full, mail};
use crate::site::Site;

/// The ids in a list, in its order.
fn ids(page: &str) -> Vec<String> {
    let links = page.split("href=\"./deliveries/").skip(1);
    links.map(|link| link.split(['"', '?']).next().unwrap().to_owned()).collect()
}

/// The link with this text, as a path.
fn link(page: &str, text: &str) -> Option<String> {
    let end = page.find(&format!("\">{text}</a>"))?;
    let start = page[..end].rfind("href=\"./").unwrap();
    Some(page[start + 7..end].replace("&#38;", "&"))
}

#[tokio::test]
async fn pages_lead_forwards_and_back_and_show_each_delivery_once() {
    let site = Site::new();
    let mut all = Vec::new();
    for _ in 0..120 {
        all.push(site.enqueue(email()).await.to_string());
    }
    for order in ["newest", "oldest"] {
        let (next, back) = if order == "newest" { ("Older", "Newer") } else { ("Newer", "Older") };
        let mut expected = all.clone();
        if order == "newest" {
            expected.reverse();
        }
        let first = site.page(&format!("/deliveries?to=ada%40example.com&order={order}")).await;
        assert!(first.contains("120 found."), "{first}");
        let second = site.page(&link(&first, next).unwrap()).await;
        let third = site.page(&link(&second, next).unwrap()).await;
        let found: Vec<_> = [&first, &second, &third].into_iter().flat_map(|page| ids(page)).collect();
        assert_eq!(found, expected, "{order}");
        assert_eq!(ids(&third).len(), 20);
        assert!(link(&third, next).is_none() && link(&first, back).is_none() && link(&first, "First page").is_none());
        let second_again = site.page(&link(&third, back).unwrap()).await;
        assert_eq!(ids(&second_again), ids(&second));
        let first_again = site.page(&link(&second_again, back).unwrap()).await;
        assert_eq!(ids(&first_again), ids(&first));
        assert!(link(&first_again, back).is_none(), "there is nothing before the first page");
        assert!(link(&third, "First page").unwrap().contains("to=ada%40example.com"));
    }
}

#[tokio::test]
async fn each_condition_of_the_filter_finds_its_delivery() {
    let site = Site::new();
    let id = site.dead(postrider::NewDelivery::new(full()).key("order-1815"), "550 a strange reply").await.to_string();
    let other = mail().to("eve@elsewhere.example").subject("Other");
    site.enqueue(other.build().unwrap()).await;
    for query in [
        "state=dead",
        "to=BOB%40example.org",
        "to=%40example.org",
        "subject=Your",
        "template_id=shipped",
        "tag=order",
        "key=order-1815",
        "error=strange+reply",
        "finished_since=1h",
        "state=dead&to=ada%40example.com&since=1h",
    ] {
        assert_eq!(ids(&site.page(&format!("/deliveries?{query}")).await), std::slice::from_ref(&id), "{query}");
    }
    for query in [
        "state=sent",
        "to=nobody%40example.com",
        "subject=our",
        "until=1h",
        "finished_until=1h",
        "provider_id=1",
        "transport=x",
    ] {
        assert!(ids(&site.page(&format!("/deliveries?{query}")).await).is_empty(), "{query}");
    }
    assert_eq!(ids(&site.page("/deliveries?unknown=1").await).len(), 2);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_named_and_nothing_is_listed() {
    let site = Site::new();
    site.enqueue(email()).await;
    for name in ["state", "order", "after", "before"] {
        let reply = site.get(&format!("/deliveries?{name}=soon")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{name}");
        assert!(reply.text().contains(&format!("cannot be read: {name}.")), "{}", reply.text());
        assert!(ids(reply.text()).is_empty(), "{}", reply.text());
    }
    for query in ["since=yesterday", "until=2030-13-01", "finished_since=%00", "to=a%00"] {
        let reply = site.get(&format!("/deliveries?{query}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(reply.text().contains("aria-invalid=\"true\"") && ids(reply.text()).is_empty(), "{}", reply.text());
    }
}

/// Two got the mail, and one was refused.
#[tokio::test]
async fn a_list_shows_who_did_not_get_a_sent_mail() {
    let site = Site::new();
    let to_three = mail().to("bob@example.org").to("cy@example.net").build().unwrap();
    let id = site.enqueue(to_three).await.to_string();
    let refusal = Refusal::new("bob@example.org", Class::Permanent, "550 5.1.1 no such user");
    let transport = ScriptedTransport::<Email>::new().then(Ok(Receipt::new().with_refused(vec![refusal])));
    Outbox::new(site.outbox.store().clone(), transport).relay().drain().await.unwrap();
    let refused = "<span class=\"state refused\">refused</span>";
    for (query, is_refused) in [("to=Bob%40example.org", true), ("to=cy%40example.net", false), ("state=sent", false)] {
        let page = site.page(&format!("/deliveries?{query}")).await;
        assert_eq!(ids(&page), std::slice::from_ref(&id), "{query}");
        assert_eq!(page.contains(refused), is_refused, "{query}: {page}");
        assert!(page.contains(">sent</span>"), "{query}: {page}");
        assert_ne!(page.contains(", 1 failed"), is_refused, "{query}: {page}");
    }
}

/// A search by tag has no index, so it reads each delivery. The first page stops after one part, and says so.
#[tokio::test]
async fn a_long_search_stops_and_continues() {
    let site = Site::new();
    let tagged = || mail().tag("rare").build().unwrap();
    let oldest = site.enqueue(tagged()).await;
    site.outbox.enqueue_all((0..5_000).map(|_| email())).await.unwrap();
    let newest = site.enqueue(tagged()).await;
    let access = |_| std::future::ready(postrider::dashboard::Access::operate());
    let dashboard = Dashboard::new(site.outbox.clone()).access(access).search_for(Duration::ZERO);
    let site = Site { router: dashboard.into_router(), ..site };
    for (order, found, other) in [("newest", newest, oldest), ("oldest", oldest, newest)] {
        let wording = if order == "newest" { "Search older mail" } else { "Search newer mail" };
        let first = site.page(&format!("/deliveries?tag=rare&order={order}")).await;
        assert_eq!(ids(&first), [found.to_string()]);
        assert!(first.contains("The search stopped at mail enqueued") && !first.contains("found."), "{first}");
        let second = site.page(&link(&first, wording).unwrap()).await;
        assert_eq!(ids(&second), [other.to_string()]);
        assert!(!second.contains("The search stopped"), "{second}");
        // And back, in the other direction.
        let back = if order == "newest" { "Newer" } else { "Older" };
        let first_again = site.page(&link(&second, back).unwrap()).await;
        assert_eq!(ids(&first_again), [found.to_string()]);
    }
    let nothing = site.page("/deliveries?tag=unknown").await;
    assert!(nothing.contains("None found so far.") && !nothing.contains("No delivery matches"), "{nothing}");
    let nothing = site.page(&link(&nothing, "Search older mail").unwrap()).await;
    assert!(nothing.contains("No delivery matches."), "{nothing}");
    // An index answers this one.
    assert!(site.page("/deliveries?state=pending").await.contains("1,000 or more found."));
}

#[tokio::test]
async fn a_large_number_is_counted_up_to_a_limit() {
    let site = Site::new();
    let all = site.outbox.enqueue_all((0..1_001).map(|_| email())).await.unwrap();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1_001);
    let page = site.page("/deliveries").await;
    assert!(page.contains("1,000 or more found."), "{page}");
}

#[tokio::test]
async fn the_search_field_understands_ids_addresses_and_subjects() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    for (wanted, location) in [
        (id.to_string(), format!("deliveries/{id}")),
        ("+ada%40example.com+".to_owned(), "deliveries?to=ada%40example.com".to_owned()),
        ("%40example.com".to_owned(), "deliveries?to=%40example.com".to_owned()),
        ("Your+order".to_owned(), "deliveries?subject=Your+order".to_owned()),
        (
            "%2F%2Fevil.example%0d%0aSet-Cookie:x".to_owned(),
            "deliveries?subject=%2F%2Fevil.example%0D%0ASet-Cookie%3Ax".to_owned(),
        ),
        (String::new(), "deliveries".to_owned()),
    ] {
        assert_eq!(site.get(&format!("/find?q={wanted}")).await.location(), location);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let site = Site::new();
    let id = site.enqueue(email()).await;
    let unknown = postrider::DeliveryId::new();
    for path in [
        format!("/deliveries/{unknown}"),
        format!("/deliveries/{unknown}/resend"),
        format!("/deliveries/{unknown}/message"),
        format!("/deliveries/{unknown}/message.html"),
        "/deliveries/x".to_owned(),
        "/deliveries/..%2f..%2fetc%2fpasswd".to_owned(),
        format!("/deliveries/{id}/nothing"),
        format!("/deliveries/{id}/message.html"),
        format!("/deliveries/{id}/attachments/1"),
        format!("/deliveries/{id}/attachments/0"),
        format!("/deliveries/{id}/attachments/-1"),
        format!("/deliveries/{id}/attachments/99999999999999999999999"),
        "/assets/..%2f..%2fsrc%2flib.rs".to_owned(),
        "/nothing".to_owned(),
    ] {
        let reply = site.get(&path).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        assert!(reply.text().contains("<h1>No such"), "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_mail_without_a_subject_has_a_heading() {
    let site = Site::new();
    let id = site.enqueue(mail().subject(" ").build().unwrap()).await;
    for path in [format!("/deliveries/{id}"), format!("/deliveries/{id}/message")] {
        assert!(site.page(&path).await.contains("<h1>No subject</h1>"), "{path}");
    }
}
