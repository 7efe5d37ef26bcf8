//! Labels, annotations and names that objects in a cluster carry for Sconce.

/// On a namespace, with the value `enabled`: pods in it may be given a sidecar.
pub const NAMESPACE_LABEL: &str = "sconce.dev/injection";
/// On a pod, with the value `true`: this pod is given a sidecar. A label and not an
/// annotation, because a webhook's `objectSelector` sees only labels.
pub const INJECT_LABEL: &str = "sconce.dev/inject";
/// Begins the label by which a pod becomes an endpoint of a model's Service:
/// `sconce.dev/model.<name>: ready`.
pub const MODEL_LABEL_PREFIX: &str = "sconce.dev/model.";
/// The value of that label.
pub const READY: &str = "ready";
/// The group and version of `Model` and `ModelVersion`.
pub const API_VERSION: &str = "sconce.dev/v1alpha1";
/// The kind of the object that declares a model: it has the model's namespace and name.
pub const MODEL_KIND: &str = "Model";
/// Who Sconce is in `managedFields` of what it applies on the server's side.
pub const FIELD_MANAGER: &str = "sconce";
/// The value of `app.kubernetes.io/managed-by` on everything that Sconce owns.
pub const MANAGED_BY: &str = "sconce";
/// The container that the injector adds.
pub const CONTAINER: &str = "sconce";
/// On everything that Sconce owns, with the value [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// On what is published for a model: its name. Only objects with this label and
/// [`MANAGED_BY_LABEL`] are ever replaced or deleted.
pub const MODEL_LABEL: &str = "sconce.dev/model";
/// The Service of each namespace by which its mesh knows what injected pods speak; see
/// [`lanes`](crate::render::lanes).
pub const LANES_SERVICE: &str = "sconce-lanes";
/// On that Service: the selectors of the namespace's models, which ask for sidecars; see
/// [`Selectors`](crate::selectors::Selectors).
pub const SELECTORS_ANNOTATION: &str = "sconce.dev/selectors";
/// On the route of a sticky model: the shares, in ten-thousandths, such as `7=9500,8=500`.
pub const SPLIT_ANNOTATION: &str = "sconce.dev/split";
/// On the route of a sticky model: the header by which callers are known.
pub const STICKY_ANNOTATION: &str = "sconce.dev/sticky";
/// What a published route sets on each request: `<namespace>/<model>/<version>@<generation>`, or
/// `<namespace>/<model>@<generation>` where pods decide.
pub const ROUTE_HEADER: &str = "x-sconce-route";
/// What a caller sets to be answered by one version, whatever the split says.
pub const PIN_HEADER: &str = "x-sconce-pin";
/// The sidecar's image and tag as `deploy/build.sh` calls it.
pub const DEFAULT_IMAGE: &str = "localhost/sconce-sidecar:dev";
/// Begins every annotation that Sconce reads or writes.
pub const ANNOTATION_PREFIX: &str = "sconce.dev/";
/// On a pod: what the injector did to it, or why it did nothing.
pub const STATUS_ANNOTATION: &str = "sconce.dev/status";
/// On a pod: the partial container of the user's that was merged over ours.
pub const OVERRIDES_ANNOTATION: &str = "sconce.dev/overrides";
