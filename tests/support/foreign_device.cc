#include "tests/support/foreign_device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace athanor {
namespace {

constexpr c10::DispatchKey kKey = c10::DispatchKey::PrivateUse1;
const c10::Device kDevice(c10::kPrivateUse1, 0);

std::atomic<int64_t> waits = 0, uploads = 0;

// --- Memory ---------------------------------------------------------------------------------------------------------

// What a storage of the device owns: a storage of the CPU, which kernels work on, and its own address, a range of the
// same size that may not be touched. Nothing has to be opened while a kernel runs, so kernels may run side by side.
struct Block {
  at::Storage host;
  void* address = nullptr;
  size_t size = 0;
};

void FreeBlock(void* context) {
  auto* block = static_cast<Block*>(context);
  if (block->address != nullptr) munmap(block->address, block->size);
  delete block;
}

at::DataPtr DeviceMemory(at::Storage host) {
  auto block = std::make_unique<Block>(Block{.host = std::move(host)});
  if (block->host.nbytes() > 0) {
    void* address = mmap(nullptr, block->host.nbytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK(address != MAP_FAILED, "no addresses left on the foreign device");
    block->address = address;
    block->size = block->host.nbytes();
  }
  void* address = block->address;
  return {address, block.release(), &FreeBlock, kDevice};
}

struct ForeignAllocator final : c10::Allocator {
  at::DataPtr allocate(size_t size) override {
    c10::Allocator* cpu = c10::GetCPUAllocator();
    return DeviceMemory({at::Storage::use_byte_size_t(), size, cpu->allocate(size), cpu, /*resizable=*/true});
  }
  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "the host cannot copy this memory"); }
};

ForeignAllocator allocator;

const at::Storage& HostStorage(const at::Storage& foreign) {
  const at::DataPtr& data = foreign.data_ptr();
  TORCH_CHECK(data.get_deleter() == &FreeBlock, "memory that the foreign device did not allocate");
  return static_cast<const Block*>(data.get_context())->host;
}

at::Storage DeviceStorage(const at::Storage& host) {
  return {at::Storage::use_byte_size_t(), host.nbytes(), DeviceMemory(host), &allocator, /*resizable=*/true};
}

// After a kernel resized the CPU's side.
void FollowSize(const at::Storage& foreign) {
  const at::Storage& host = HostStorage(foreign);
  if (host.nbytes() == foreign.nbytes()) return;
  const size_t size = host.nbytes();
  foreign.unsafeGetStorageImpl()->set_data_ptr_noswap(DeviceMemory(host));
  foreign.unsafeGetStorageImpl()->set_nbytes(size);
}

// --- One call of an operator, with the tensors of the device replaced by tensors of the CPU over the same memory -----

class HostCall {
 public:
  c10::IValue ToHost(const c10::IValue& value);
  at::Tensor ToHost(const at::Tensor& foreign);
  c10::IValue ToDevice(const c10::IValue& value);
  // Repeats on the device's tensors what the kernel did to sizes, strides and storages of its arguments.
  void Update();

 private:
  struct Twins {
    at::Tensor foreign, host;
  };

  at::Storage ToHost(const at::Storage& foreign);
  at::Storage ToDevice(const at::Storage& host);
  at::Tensor ToDevice(const at::Tensor& host);

  std::vector<Twins> tensors_;
  std::vector<at::Storage> storages_;  // of the device: all that the kernel sees or made
};

// Applies `convert` to what `value` holds: itself, or the items of a list of tensors.
template <typename Convert>
c10::IValue Converted(const c10::IValue& value, const Convert& convert) {
  if (!value.isTensorList() && !value.isOptionalTensorList()) return convert(value);
  c10::impl::GenericList converted(value.toList().elementType());
  for (const c10::IValue& item : value.toListRef()) converted.push_back(convert(item));
  return converted;
}

at::Storage HostCall::ToHost(const at::Storage& foreign) {
  if (std::none_of(storages_.begin(), storages_.end(), [&](const auto& known) { return known.is_alias_of(foreign); })) {
    storages_.push_back(foreign);
  }
  return HostStorage(foreign);
}

at::Storage HostCall::ToDevice(const at::Storage& host) {
  for (const at::Storage& known : storages_) {
    if (HostStorage(known).is_alias_of(host)) return known;
  }
  return storages_.emplace_back(DeviceStorage(host));
}

void CopyLayout(const at::Tensor& from, const at::Tensor& to) {
  to.unsafeGetTensorImpl()->set_sizes_and_strides(from.sizes(), from.strides(), from.storage_offset());
  to.unsafeGetTensorImpl()->_set_conj(from.is_conj());
  to.unsafeGetTensorImpl()->_set_neg(from.is_neg());
}

at::Tensor HostCall::ToHost(const at::Tensor& foreign) {
  if (!foreign.defined() || foreign.device() != kDevice) return foreign;
  for (const Twins& twins : tensors_) {
    if (twins.foreign.is_same(foreign)) return twins.host;
  }
  TORCH_CHECK(foreign.layout() == at::kStrided, "the foreign device has strided tensors only");
  auto host = at::detail::make_tensor<c10::TensorImpl>(ToHost(foreign.storage()),
                                                       c10::DispatchKeySet(c10::DispatchKey::CPU), foreign.dtype());
  CopyLayout(foreign, host);
  if (foreign.unsafeGetTensorImpl()->is_wrapped_number()) host.unsafeGetTensorImpl()->set_wrapped_number(true);
  tensors_.push_back({foreign, host});
  return host;
}

at::Tensor HostCall::ToDevice(const at::Tensor& host) {
  if (!host.defined() || !host.is_cpu() || host.layout() != at::kStrided) return host;
  for (const Twins& twins : tensors_) {
    if (twins.host.is_same(host)) return twins.foreign;
  }
  at::Storage storage = ToDevice(host.storage());
  at::Tensor foreign;
  for (const Twins& twins : tensors_) {
    if (!twins.foreign.storage().is_alias_of(storage)) continue;
    foreign = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage),
                                                       twins.foreign.key_set(), host.dtype());
    break;
  }
  if (!foreign.defined()) {
    foreign = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(kKey), host.dtype());
  }
  CopyLayout(host, foreign);
  return foreign;
}

// A generator of the device is one of the CPU under another name.
struct ForeignGenerator final : c10::GeneratorImpl {
  explicit ForeignGenerator(at::Generator host)
      : GeneratorImpl(kDevice, c10::DispatchKeySet(kKey)), host(std::move(host)) {}
  void set_current_seed(uint64_t seed) override { Locked()->set_current_seed(seed); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return Locked()->seed(); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  void set_state(const c10::TensorImpl& state) override { Locked()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }

  at::Generator host;

 private:
  struct Lock {
    c10::GeneratorImpl* operator->() const { return generator; }
    c10::GeneratorImpl* generator;
    std::unique_lock<std::mutex> lock;
  };
  Lock Locked() { return {host.unsafeGetGeneratorImpl(), std::unique_lock(host.mutex())}; }
  GeneratorImpl* clone_impl() const override { return new ForeignGenerator(host.clone()); }
};

c10::IValue HostCall::ToHost(const c10::IValue& value) {
  return Converted(value, [&](const c10::IValue& item) -> c10::IValue {
    if (item.isTensor()) return ToHost(item.toTensor());
    if (item.isStorage()) return item.toStorage().device() == kDevice ? ToHost(item.toStorage()) : item.toStorage();
    if (item.isDevice()) return item.toDevice().is_privateuseone() ? c10::Device(c10::kCPU) : item.toDevice();
    if (!item.isGenerator() || item.toGenerator().device() != kDevice) return item;
    return static_cast<const ForeignGenerator*>(item.toGenerator().unsafeGetGeneratorImpl())->host;
  });
}

c10::IValue HostCall::ToDevice(const c10::IValue& value) {
  return Converted(value, [&](const c10::IValue& item) -> c10::IValue {
    if (item.isTensor()) return ToDevice(item.toTensor());
    return item;
  });
}

void HostCall::Update() {
  for (const at::Storage& storage : storages_) FollowSize(storage);
  for (const Twins& twins : tensors_) {
    if (!HostStorage(twins.foreign.storage()).is_alias_of(twins.host.storage())) {
      twins.foreign.unsafeGetTensorImpl()->set_storage_keep_dtype(ToDevice(twins.host.storage()));
    }
    const bool same_layout = twins.foreign.sizes() == twins.host.sizes() &&
                             twins.foreign.strides() == twins.host.strides() &&
                             twins.foreign.storage_offset() == twins.host.storage_offset();
    if (!same_layout) CopyLayout(twins.host, twins.foreign);
  }
}

// --- What CUDA refuses, and where it waits --------------------------------------------------------------------------

using Values = c10::ArrayRef<c10::IValue>;

// One call of an operator, as it came.
struct Call {
  const c10::OperatorHandle& op;
  Values values;
  std::string name;  // without "aten::" and the "_" at the end that stands for in place
};

std::string BaseName(const c10::OperatorHandle& op) {
  std::string name = op.schema().name();
  name.erase(0, name.find("::") + 2);
  if (name.ends_with("_") && !name.ends_with("__")) name.pop_back();
  return name;
}

using Names = std::set<std::string>;

Names Words(const char* text) {
  std::istringstream words(text);
  return {std::istream_iterator<std::string>(words), {}};
}

// Where CUDA takes a 0-dim tensor of the CPU and passes it on as a number. LibTorch's own checks, which run before most
// of these operators, know better which of the operands it may be.
bool TakesHostNumbers(const std::string& name, const std::string& argument) {
  static const Names names = Words(
      "add sub rsub mul div floor_divide remainder fmod pow atan2 hypot xlogy maximum minimum fmax fmin clamp_min "
      "clamp_max eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor "
      "bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ copysign heaviside nextafter where addcmul fill");
  static const Names arguments = Words(
      "masked_fill.value index_fill.value lerp.weight index_put.values _unsafe_index_put.values _index_put_impl.values "
      "_fused_adam.lr _fused_adamw.lr _fused_sgd.lr _fused_adagrad.lr");
  return names.contains(name) || arguments.contains(name + "." + argument);
}

// Where CUDA takes indices of the CPU.
bool TakesHostIndices(const std::string& name, const std::string& argument) {
  static const Names names = Words("index _unsafe_index index_put _unsafe_index_put _index_put_impl");
  return argument == "indices" && names.contains(name);
}

// Calls visit(argument, tensor) for every defined tensor.
template <typename Visit>
void EachTensor(const Call& call, const Visit& visit) {
  for (size_t i = 0; i < call.values.size(); ++i) {
    const c10::IValue& value = call.values[i];
    const bool list = value.isTensorList() || value.isOptionalTensorList();
    for (const c10::IValue& item : list ? value.toListRef() : Values(value)) {
      if (item.isTensor() && item.toTensor().defined()) visit(call.op.schema().arguments()[i], item.toTensor());
    }
  }
}

void CheckDevices(const Call& call) {
  bool any = false;
  EachTensor(call, [&](const auto&, const at::Tensor& tensor) { any = any || tensor.device() == kDevice; });
  if (!any) return;
  int numbers = 0;
  EachTensor(call, [&](const c10::Argument& argument, const at::Tensor& tensor) {
    if (tensor.device() == kDevice) return;
    if (tensor.is_cpu() && TakesHostIndices(call.name, argument.name())) return;
    const bool number = tensor.is_cpu() && tensor.dim() == 0 && TakesHostNumbers(call.name, argument.name());
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    if (number && !written && (++numbers == 1 || call.name == "where")) return;
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but got ", argument.name(), " is on ",
                tensor.device(), ", different from other tensors on ", kDevice, " (when checking argument in ",
                call.op.schema().operator_name(), ")");
  });
  for (const c10::IValue& value : call.values) {
    TORCH_CHECK(!value.isGenerator() || value.toGenerator().device() == kDevice, "Expected a '", kDevice.type(),
                "' device type for generator but found '", value.toGenerator().device().type(), "'");
  }
}

// CUDA multiplies no matrices of integers and makes no histogram but histc().
void CheckKernelExists(const Call& call) {
  static const Names products = Words("mm addmm _addmm_activation addmv bmm baddbmm addbmm dot vdot");
  static const Names histograms =
      Words("histogram _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors");
  const bool product = products.contains(call.name), histogram = histograms.contains(call.name);
  if (!product && !histogram) return;
  const at::ScalarType dtype = call.values[0].toTensor().scalar_type();
  TORCH_CHECK_NOT_IMPLEMENTED(product && !c10::isIntegralType(dtype, /*includeBool=*/true), "\"", call.name,
                              "\" not implemented on CUDA for '", dtype, "'");
}

void CountWaits(const Call& call) {
  static const Names always = Words(
      "_local_scalar_dense nonzero masked_select _unique _unique2 unique_dim unique_consecutive unique_dim_consecutive "
      "bincount equal");
  bool wait = always.contains(call.name);
  // The size of the result is not given.
  wait |= call.name == "repeat_interleave" && call.values.back().isNone();
  // The limits are not given.
  wait |= call.name == "histc" && call.values[2].toScalar().toDouble() == call.values[3].toScalar().toDouble();
  EachTensor(call, [&](const c10::Argument& argument, const at::Tensor& tensor) {
    const bool index = call.name == "_index_put_impl" && argument.name() == "indices";
    if (index && tensor.is_cpu()) ++uploads;  // index() makes this copy with copy_()
    if (tensor.is_cpu()) return;
    wait |= index && (tensor.scalar_type() == at::kBool || tensor.scalar_type() == at::kByte);
    wait |= (call.name == "masked_fill" || call.name == "index_fill") && argument.name() == "value";
  });
  if (wait) ++waits;
}

// --- Operators ------------------------------------------------------------------------------------------------------

void RunOnHost(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto arguments = static_cast<int64_t>(op.schema().arguments().size());
  const auto returns = static_cast<int64_t>(op.schema().returns().size());
  const Call call{op, Values(*stack).slice(stack->size() - arguments), BaseName(op)};
  CheckDevices(call);
  CheckKernelExists(call);
  CountWaits(call);
  HostCall host;
  for (auto value = stack->end() - arguments; value != stack->end(); ++value) *value = host.ToHost(*value);
  {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  host.Update();
  for (auto value = stack->end() - returns; value != stack->end(); ++value) *value = host.ToDevice(*value);
}

at::Tensor Empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(kKey), c10::dtype_or_default(dtype), format);
}

at::Tensor EmptyStrided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                        std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(kKey),
                                           c10::dtype_or_default(dtype));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  if (to.is_cpu() && from.numel() > 0) ++waits;
  if (from.is_cpu() && from.numel() > 0) ++uploads;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  HostCall call;
  call.ToHost(to).copy_(call.ToHost(from));
  return to;
}

// Whether Tensor::set_data() may put a tensor of the one kind into one of the other: as Module::to(device) does.
bool Exchangeable(const at::Tensor& one, const at::Tensor& other) {
  return one.layout() == at::kStrided && other.layout() == at::kStrided;
}

// --- The device itself: always current, one stream, nothing left to wait for ----------------------------------------

struct ForeignGuard final : c10::impl::NoOpDeviceGuardImpl<c10::kPrivateUse1> {
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(kDevice); }
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override { ++waits; }
  void synchronizeStream(const c10::Stream&) const override { ++waits; }
  void synchronizeDevice(c10::DeviceIndex) const override { ++waits; }
};

struct ForeignHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Device getDeviceFromPtr(void*) const override { return kDevice; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const auto generator = at::make_generator<ForeignGenerator>(at::detail::getDefaultCPUGenerator());
    return generator;
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<ForeignGenerator>(at::detail::createCPUGenerator());
  }
  void resizePrivateUse1Bytes(const at::Storage& storage, size_t size) const override {
    at::native::resize_bytes_cpu(HostStorage(storage).unsafeGetStorageImpl(), size);
    FollowSize(storage);
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, ForeignGuard)

}  // namespace

c10::Device ForeignDevice() {
  static std::once_flag once;
  std::call_once(once, [] {
    static ForeignHooks hooks;
    at::RegisterPrivateUse1HooksInterface(&hooks);
    c10::SetAllocator(c10::kPrivateUse1, &allocator);
    c10::register_privateuse1_backend("foreign");
  });
  return kDevice;
}

int64_t ForeignWaits() {
  return waits;
}

int64_t ForeignUploads() {
  return uploads;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&RunOnHost>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &Empty);
  library.impl("empty_strided", &EmptyStrided);
  library.impl("_copy_from", &CopyFrom);
  library.impl("_has_compatible_shallow_copy_type", &Exchangeable);
  // For these LibTorch has a way of its own: other operators (other bits than the CPU's), a warning or an error.
  for (const char* name : {"convolution", "convolution_backward", "native_layer_norm", "native_group_norm",
                           "silu_backward", "mish_backward", "addr", "linalg__powsum", "mse_loss", "smooth_l1_loss"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&RunOnHost>());
  }
}

// A copy takes conjugates and negatives as they are; LibTorch would resolve them first, by a copy.
TORCH_LIBRARY_IMPL(aten, Conjugate, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Negative, library) {
  library.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

// Autocast, as for CUDA.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

#define LOWER(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FP32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FP32_SET_OPT_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define PROMOTE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)

}  // namespace athanor

namespace at::autocast {  // the macros' names are of this namespace

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  AT_FORALL_LOWER_PRECISION_FP(LOWER)
  AT_FORALL_FP32(FP32)
  AT_FORALL_FP32_SET_OPT_DTYPE(FP32_SET_OPT_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(PROMOTE)
}

}  // namespace at::autocast
