//! The shim's functions, and the few types that make them safe to call.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    path::Path,
    ptr, slice,
};

use crate::engine::State;

/// What an input is, by the numbers of shim.h.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Tag {
    Tensor = 0,
    Int = 1,
    Float = 2,
    Bool = 3,
    String = 4,
    StringList = 5,
    TensorList = 6,
    LeftOut = 7,
}

/// `sconce_value` of shim.h. Pointers must outlive the call they are passed to.
#[repr(C)]
pub(super) struct RawValue {
    kind: i32,
    integer: i64,
    real: f64,
    data: *const c_void,
    shape: *const i64,
    rank: usize,
    scalar_type: i32,
    strings: *const *const c_char,
    lengths: *const usize,
    count: usize,
}

#[repr(C)]
struct RawModule {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawResult {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn sconce_start() -> *mut c_char;
    fn sconce_load(path: *const c_char, out: *mut *mut RawModule) -> *mut c_char;
    fn sconce_drop(module: *mut RawModule);
    fn sconce_schema(module: *const RawModule, out: *mut *mut c_char) -> *mut c_char;
    fn sconce_state(module: *const RawModule) -> i32;
    fn sconce_copy(module: *const RawModule, out: *mut *mut RawModule) -> *mut c_char;
    fn sconce_forward(
        module: *const RawModule,
        inputs: *const RawValue,
        count: usize,
        out: *mut *mut RawResult,
        unsendable: *mut i32,
    ) -> *mut c_char;
    fn sconce_result_count(result: *const RawResult) -> usize;
    fn sconce_result_name(result: *const RawResult, at: usize, length: *mut usize) -> *const c_char;
    fn sconce_result_scalar_type(result: *const RawResult, at: usize) -> i32;
    fn sconce_result_shape(result: *const RawResult, at: usize, rank: *mut usize) -> *const i64;
    fn sconce_result_data(result: *const RawResult, at: usize, bytes: *mut usize) -> *const c_void;
    fn sconce_result_strings(result: *const RawResult, at: usize) -> usize;
    fn sconce_result_string(
        result: *const RawResult,
        at: usize,
        index: usize,
        length: *mut usize,
    ) -> *const c_char;
    fn sconce_result_drop(result: *mut RawResult);
    fn sconce_free(text: *mut c_char);
    fn sconce_trim();
}

/// A module of libtorch.
pub(super) struct RawHandle(*mut RawModule);

// SAFETY: `forward` on a shared module is safe from any number of threads as long as the
// module does not change itself (measured: 200,000 concurrent calls); one that does is
// copied, which reads it, or run under a lock by its owner, `TorchModule`.
unsafe impl Send for RawHandle {}
// SAFETY: as above.
unsafe impl Sync for RawHandle {}

/// What one forward pass gave.
pub(super) struct Outcome(*mut RawResult);

// SAFETY: an outcome is only read after it is made, and owned by one value.
unsafe impl Send for Outcome {}
// SAFETY: as above; the shim's accessors change nothing.
unsafe impl Sync for Outcome {}

/// Why a forward pass gave nothing.
pub(super) enum Failure {
    /// The model's code, or libtorch under it, threw.
    Model(String),
    /// The model ran, and its result has no form on the wire.
    Unsendable(String),
}

/// One argument of `forward`, as libtorch read it from the model's code.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) name: String,
    /// In TorchScript's spelling, such as `Optional[Tensor]`.
    pub(super) type_name: String,
    pub(super) has_default: bool,
}

/// One result of an [`Outcome`].
pub(super) enum Item<'a> {
    Tensor { scalar_type: i32, shape: &'a [i64] },
    Strings(Vec<&'a [u8]>),
}

impl RawValue {
    pub(super) const fn left_out() -> Self {
        Self {
            kind: Tag::LeftOut as i32,
            integer: 0,
            real: 0.0,
            data: ptr::null(),
            shape: ptr::null(),
            rank: 0,
            scalar_type: 0,
            strings: ptr::null(),
            lengths: ptr::null(),
            count: 0,
        }
    }

    pub(super) fn integer(kind: Tag, integer: i64) -> Self {
        Self { kind: kind as i32, integer, ..Self::left_out() }
    }

    pub(super) fn real(real: f64) -> Self {
        Self { kind: Tag::Float as i32, real, ..Self::left_out() }
    }

    /// `data` must hold all elements that `shape` asks for.
    pub(super) fn tensor(kind: Tag, scalar_type: i32, shape: &[i64], data: &[u8]) -> Self {
        Self {
            kind: kind as i32,
            data: data.as_ptr().cast(),
            shape: shape.as_ptr(),
            rank: shape.len(),
            scalar_type,
            ..Self::left_out()
        }
    }

    pub(super) fn strings(kind: Tag, strings: &[*const c_char], lengths: &[usize]) -> Self {
        Self {
            kind: kind as i32,
            strings: strings.as_ptr(),
            lengths: lengths.as_ptr(),
            count: strings.len(),
            ..Self::left_out()
        }
    }
}

impl RawHandle {
    pub(super) fn load(file: &Path) -> Result<Self, String> {
        let path = CString::new(file.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
        let mut module = ptr::null_mut();
        // SAFETY: both pointers are valid for the call.
        check(unsafe { sconce_load(path.as_ptr(), &raw mut module) })?;
        Ok(Self(module))
    }

    /// The arguments of `forward` but `self`.
    pub(super) fn schema(&self) -> Result<Vec<Argument>, String> {
        let mut text = ptr::null_mut();
        // SAFETY: the module lives as long as self.
        check(unsafe { sconce_schema(self.0, &raw mut text) })?;
        let text = take(text);
        let line = |line: &str| {
            let mut parts = line.split('\t').map(str::to_owned);
            Some(Argument {
                name: parts.next()?,
                type_name: parts.next()?,
                has_default: parts.next()? == "1",
            })
        };
        Ok(text.lines().filter_map(line).collect())
    }

    pub(super) fn state(&self) -> State {
        // SAFETY: the module lives as long as self.
        match unsafe { sconce_state(self.0) } {
            0 => State::None,
            1 => State::Instance,
            _ => State::Shared,
        }
    }

    /// A module of its own, in the state of this one.
    pub(super) fn copy(&self) -> Result<Self, String> {
        let mut copy = ptr::null_mut();
        // SAFETY: the module lives as long as self, and copying only reads it.
        check(unsafe { sconce_copy(self.0, &raw mut copy) })?;
        Ok(Self(copy))
    }

    /// # Safety
    /// Everything the inputs point to must be valid, tensors as large as their shapes say.
    pub(super) unsafe fn forward(&self, inputs: &[RawValue]) -> Result<Outcome, Failure> {
        let (mut result, mut unsendable) = (ptr::null_mut(), 0);
        // SAFETY: the module lives as long as self; the caller vouches for the inputs.
        let error = unsafe {
            sconce_forward(self.0, inputs.as_ptr(), inputs.len(), &raw mut result, &raw mut unsendable)
        };
        check(error)
            .map_err(|text| if unsendable == 0 { Failure::Model(text) } else { Failure::Unsendable(text) })?;
        Ok(Outcome(result))
    }
}

impl Drop for RawHandle {
    fn drop(&mut self) {
        // SAFETY: made by `sconce_load` or `sconce_copy`, dropped once.
        unsafe { sconce_drop(self.0) }
    }
}

impl Outcome {
    pub(super) fn len(&self) -> usize {
        // SAFETY: the result lives as long as self.
        unsafe { sconce_result_count(self.0) }
    }

    /// Empty where the model gave none.
    pub(super) fn name(&self, at: usize) -> String {
        let mut length = 0;
        // SAFETY: `at` is below `len`; the text lives as long as self.
        let name = unsafe {
            let name = sconce_result_name(self.0, at, &raw mut length);
            slice::from_raw_parts(name.cast(), length)
        };
        String::from_utf8_lossy(name).into_owned()
    }

    pub(super) fn item(&self, at: usize) -> Item<'_> {
        // SAFETY: `at` is below `len`, and everything returned lives as long as self.
        unsafe {
            let scalar_type = sconce_result_scalar_type(self.0, at);
            if scalar_type < 0 {
                let strings = (0..sconce_result_strings(self.0, at)).map(|index| {
                    let mut length = 0;
                    let text = sconce_result_string(self.0, at, index, &raw mut length);
                    slice::from_raw_parts(text.cast(), length)
                });
                return Item::Strings(strings.collect());
            }
            let mut rank = 0;
            let shape = sconce_result_shape(self.0, at, &raw mut rank);
            // A scalar's sizes may be a null pointer, which no slice may have.
            let shape = if rank == 0 { &[][..] } else { slice::from_raw_parts(shape, rank) };
            Item::Tensor { scalar_type, shape }
        }
    }

    /// The elements of a tensor; it is contiguous and in host memory.
    pub(super) fn data(&self, at: usize) -> &[u8] {
        let mut bytes = 0;
        // SAFETY: `at` is below `len`, and the tensor lives as long as self.
        unsafe {
            let data = sconce_result_data(self.0, at, &raw mut bytes);
            if bytes == 0 { &[] } else { slice::from_raw_parts(data.cast(), bytes) }
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        // SAFETY: made by `sconce_forward`, dropped once.
        unsafe { sconce_result_drop(self.0) }
    }
}

/// Prepares libtorch for this process; to be called on a thread of normal priority.
pub(super) fn start() -> Result<(), String> {
    // SAFETY: starts threads of libtorch's own, once.
    check(unsafe { sconce_start() })
}

/// Hands free memory back to the system.
pub(super) fn trim() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { sconce_trim() }
}

fn check(error: *mut c_char) -> Result<(), String> {
    if error.is_null() { Ok(()) } else { Err(take(error)) }
}

fn take(text: *mut c_char) -> String {
    // SAFETY: the shim gave a string of its own, which is freed once, here.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        sconce_free(text);
        owned
    }
}
