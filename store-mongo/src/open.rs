//! Connecting: what the server must be, and the collections and indexes that must be there.

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind as Driver;
use mongodb::options::{
    Acknowledgment, ClientOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Database, IndexModel};

use crate::MongoSettings;
use crate::error::{OpenError, code_of, is_login, is_other_index, is_unauthorized, text};

/// Version of this layout of collections.
const LAYOUT: i64 = 1;
/// Wire version of server 6.0.
const WIRE_VERSION_MIN: i32 = 17;
/// The collection exists already.
const NAMESPACE_EXISTS: i32 = 48;

const COLLECTIONS: [&str; 10] = [
    "meta",
    "leases",
    "shards",
    "tasks",
    "tombstones",
    "nodes",
    "artifacts",
    "staged",
    "scratch",
    "workers",
];

pub(crate) async fn connect(settings: &MongoSettings) -> Result<(Client, Database), OpenError> {
    let options = ClientOptions::parse(&settings.uri).await;
    // The driver's text may quote the string.
    let mut options = options.map_err(|error| match &*error.kind {
        Driver::InvalidArgument { .. } => {
            OpenError::Uri("it is not of the form mongodb://HOST:PORT/?replicaSet=NAME".to_owned())
        }
        _ => OpenError::Uri("it cannot be resolved".to_owned()),
    })?;
    options.app_name.get_or_insert_with(|| "flowkit".to_owned());
    options.max_pool_size = Some(settings.pool_max);
    options.max_connecting = Some(8);
    options.server_selection_timeout = Some(settings.server_timeout);
    options
        .connect_timeout
        .get_or_insert(settings.server_timeout);
    // Never less than this, whatever the string says: promises rest on it.
    let durable = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build();
    options.write_concern = Some(durable);
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    let client = Client::with_options(options).map_err(|e| OpenError::Uri(text(&e)))?;
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await;
    let hello = hello.map_err(|error| match is_login(&error) {
        true => OpenError::Credentials(text(&error)),
        false => OpenError::Unreachable(text(&error)),
    })?;
    check(&hello)?;
    let database = client.database(&settings.database);
    set_up(&database).await?;
    Ok((client, database))
}

/// Whether the server has what is needed.
fn check(hello: &Document) -> Result<(), OpenError> {
    let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if hello.get_str("setName").is_err() && !is_router {
        return Err(OpenError::Standalone);
    }
    let wire = hello.get_i32("maxWireVersion").unwrap_or(0);
    if wire < WIRE_VERSION_MIN {
        return Err(OpenError::TooOld(format!("(wire version {wire})")));
    }
    Ok(())
}

async fn set_up(database: &Database) -> Result<(), OpenError> {
    let failed = |error: &mongodb::error::Error| set_up_failed(database.name(), error);
    for name in COLLECTIONS {
        match database.create_collection(name).await {
            Err(error) if code_of(&error) != Some(NAMESPACE_EXISTS) => return Err(failed(&error)),
            _ => {}
        }
    }
    let meta = database.collection::<Document>("meta");
    let layout = meta
        .find_one_and_update(
            doc! { "_id": "layout" },
            doc! { "$setOnInsert": { "version": LAYOUT } },
        )
        .upsert(true)
        .return_document(mongodb::options::ReturnDocument::After)
        .await
        .map_err(|error| failed(&error))?;
    let found = layout.map_or(LAYOUT, |layout| layout.get_i64("version").unwrap_or(0));
    if found > LAYOUT {
        return Err(OpenError::Layout {
            found,
            known: LAYOUT,
        });
    }
    // An index of the same name with other keys or options is refused by the server: so this checks
    // what is there as well.
    let index = |name: &str, keys: Document, unique: bool| {
        let options = IndexOptions::builder()
            .name(name.to_owned())
            .unique(unique)
            .build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    // Few tasks are reruns.
    let holds = IndexOptions::builder()
        .name("holds".to_owned())
        .sparse(true)
        .build();
    let holds = IndexModel::builder()
        .keys(doc! { "holds": 1 })
        .options(holds)
        .build();
    for (collection, model) in [
        (
            "tasks",
            index(
                "unsettled",
                doc! { "shard": 1, "settled": 1, "_id": 1 },
                false,
            ),
        ),
        (
            "tasks",
            index(
                "ended",
                doc! { "shard": 1, "failed": 1, "ended": 1, "_id": 1 },
                false,
            ),
        ),
        ("tasks", holds),
        ("nodes", index("task", doc! { "task": 1, "_id": 1 }, false)),
        (
            "nodes",
            index("worker", doc! { "worker": 1, "_id": 1 }, false),
        ),
        (
            "artifacts",
            index("uid", doc! { "node": 1, "uid": 1 }, true),
        ),
    ] {
        let name = model
            .options
            .as_ref()
            .and_then(|options| options.name.clone());
        let made = database
            .collection::<Document>(collection)
            .create_index(model)
            .await;
        match made {
            Err(error) if is_other_index(code_of(&error)) => {
                return Err(OpenError::Index {
                    collection: collection.to_owned(),
                    index: name.unwrap_or_default(),
                    reason: text(&error),
                });
            }
            Err(error) => return Err(failed(&error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn set_up_failed(database: &str, error: &mongodb::error::Error) -> OpenError {
    let text = text(error);
    if !is_unauthorized(code_of(error)) {
        return OpenError::SetUp(text);
    }
    if text.contains("requires authentication") {
        return OpenError::Credentials("it wants a user, and the URI names none".to_owned());
    }
    // What follows is the whole command, with what belongs to the session.
    let reason = text.split(" { ").next().unwrap_or_default();
    OpenError::Unauthorized {
        database: database.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are those of a server with `--auth`.
    #[test]
    fn a_user_without_rights_is_told_apart_from_other_refusals() {
        let answer = |code: i32, text: &str| {
            let command = doc! { "code": code, "codeName": "Some", "errmsg": text };
            let command = mongodb::bson::deserialize_from_document(command);
            let command = Driver::Command(command.expect("a server's answer"));
            set_up_failed("jobs", &command.into())
        };
        let reader = "not authorized on jobs to execute command { create: \"meta\", lsid: 7 }";
        let error = answer(13, reader);
        assert!(matches!(error, OpenError::Unauthorized { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("readWrite") && text.contains("jobs"),
            "{text}"
        );
        assert!(!text.contains("lsid"), "{text}");
        let nobody = answer(13, "command create requires authentication");
        assert!(matches!(nobody, OpenError::Credentials(_)), "{nobody}");
        assert!(nobody.to_string().contains("names none"), "{nobody}");
        assert!(matches!(answer(85, "other"), OpenError::SetUp(_)));
    }

    #[test]
    fn a_standalone_and_an_old_server_are_refused_with_the_cure() {
        let alone = check(&doc! { "maxWireVersion": 17 }).expect_err("no set");
        assert!(alone.to_string().contains("replica set"), "{alone}");
        let old = check(&doc! { "setName": "rs0", "maxWireVersion": 13 }).expect_err("old");
        assert!(old.to_string().contains("6.0"), "{old}");
        assert!(check(&doc! { "setName": "rs0", "maxWireVersion": 17 }).is_ok());
        assert!(check(&doc! { "msg": "isdbgrid", "maxWireVersion": 21 }).is_ok());
    }
}
