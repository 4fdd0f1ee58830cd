//! The input of a node, and the payloads that the input adapters make.

use flowkit_core::id::{BatchUid, NodeId, TaskId};
use flowkit_core::json::Json;
use flowkit_core::message::AdapterSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::HandlerError;

/// A node's `io` as the graph gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskInput {
    /// `io.input_ref`: points to data elsewhere, in words that the handler understands.
    #[serde(default, rename = "input_ref")]
    pub reference: Option<Json>,
    /// `io.input_inline`: the data itself.
    #[serde(default, rename = "input_inline")]
    pub inline: Option<Json>,
    /// The input adapter that [`Handler::load_input`](crate::Handler::load_input) proposes. Used
    /// if the graph names none and the engine knows it.
    #[serde(skip)]
    pub adapter: Option<AdapterSpec>,
}

impl TaskInput {
    /// An input with this inline value.
    #[must_use]
    pub fn of_inline(inline: Json) -> Self {
        Self {
            inline: Some(inline),
            ..Self::default()
        }
    }

    /// Decodes `input_inline` (`null` if there is none).
    ///
    /// # Errors
    /// Permanent, `bad_input`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.inline
            .clone()
            .unwrap_or_default()
            .decode()
            .map_err(|error| HandlerError::bad_input(&error))
    }

    /// Proposes an input adapter, such as `pull.from_artifacts`.
    #[must_use]
    pub fn with_adapter(mut self, name: &str, args: Json) -> Self {
        self.adapter = Some(AdapterSpec {
            name: Arc::from(name),
            args,
        });
        self
    }

    pub(crate) fn of_spec(input: &Json) -> Result<Self, HandlerError> {
        input
            .decode()
            .map_err(|error| HandlerError::bad_input(&error))
    }
}

/// Points to an accepted artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ArtifactRef {
    /// The task.
    pub task_id: TaskId,
    /// The node that wrote it.
    pub node_id: NodeId,
    /// The batch that it is of.
    pub batch_uid: BatchUid,
}

/// Payload of a batch of `pull.from_artifacts`: one upstream artifact.
///
/// Use it as `type Input = Pulled<YourType>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pulled<T> {
    /// The upstream node.
    pub from_node: NodeId,
    /// Which artifact it is.
    #[serde(rename = "ref")]
    pub reference: ArtifactRef,
    /// The artifact.
    pub meta: T,
}

/// Payload of a batch of `pull.from_artifacts.rechunk:size`: up to `size` items of one upstream
/// artifact.
///
/// Use it as `type Input = Chunk<YourItem>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chunk<T> {
    /// The upstream node.
    pub from_node: NodeId,
    /// The items.
    pub items: Vec<T>,
    /// The artifact that they are of.
    pub parent: ChunkParent,
}

/// The artifact that a [`Chunk`] is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChunkParent {
    /// Which batch of [`Chunk::from_node`] wrote it.
    #[serde(rename = "ref")]
    pub reference: ChunkRef,
    /// The list that was cut; `None` if each artifact is one item.
    #[serde(default)]
    pub meta_list_key: Option<String>,
}

/// See [`ChunkParent::reference`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChunkRef {
    /// The batch.
    pub batch_uid: BatchUid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapter_payloads_decode_into_their_types() {
        let pulled: Pulled<Vec<u32>> = serde_json::from_str(
            r#"{"from_node":"a","ref":{"task_id":"t","node_id":"a","batch_uid":"1"},"meta":[1]}"#,
        )
        .unwrap();
        assert_eq!(pulled.meta, [1]);
        let chunk: Chunk<u32> = serde_json::from_str(
            r#"{"from_node":"a","items":[1,2],"parent":{"ref":{"batch_uid":"1"}}}"#,
        )
        .unwrap();
        assert_eq!(chunk.items, [1, 2]);
        assert_eq!(chunk.parent.reference.batch_uid.as_str(), "1");
    }

    #[test]
    fn an_input_without_inline_value_decodes_as_null() {
        let input = TaskInput::of_spec(&Json::parse("{}").unwrap()).unwrap();
        assert_eq!(input.decode::<Option<u32>>().unwrap(), None);
        assert!(input.decode::<u32>().is_err());
    }
}
