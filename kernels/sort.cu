// Sorting words by some of their bits with cub::DeviceRadixSort, behind a plain C interface: the time of a request and
// nothing of its position, for equal keys stay in order. servegen_gpu/backends/cuda/sort.py builds it with nvcc;
// tests/test_cuda_sort.py runs the same text on the host.
#include <cstdint>
#include <cub/device/device_radix_sort.cuh>

// Asks for scratch space where `scratch` is null. Which of the two buffers has the sorted keys comes in `in_other`.
// A CUDA error, or 0.
extern "C" int sg_sort(int device, uint64_t* keys, uint64_t* other, int64_t n, int begin_bit, int end_bit, void* scratch,
                       size_t* bytes, int* in_other, void* stream) {
    if (const auto error = cudaSetDevice(device)) return error;  // of this library's own runtime
    cub::DoubleBuffer<uint64_t> both(keys, other);
    const auto error = cub::DeviceRadixSort::SortKeys(scratch, *bytes, both, n, begin_bit, end_bit,
                                                      static_cast<cudaStream_t>(stream));
    *in_other = both.selector;
    return error;
}
