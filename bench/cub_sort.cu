// cub::DeviceRadixSort behind a plain C interface: key and value widths, and how many bits of the key matter.
//
//   nvcc -O3 -arch=native -shared -Xcompiler -fPIC bench/cub_sort.cu -o cub_sort.so
#include <cstdint>
#include <cub/device/device_radix_sort.cuh>

template <class K, class V>
static int sort(void* keys, void* keys_to, void* values, void* values_to, int64_t n, int begin_bit, int end_bit,
                void* scratch, size_t* bytes) {
    auto k = static_cast<K*>(keys), k_to = static_cast<K*>(keys_to);
    if (!values) return cub::DeviceRadixSort::SortKeys(scratch, *bytes, k, k_to, n, begin_bit, end_bit);
    auto v = static_cast<V*>(values), v_to = static_cast<V*>(values_to);
    return cub::DeviceRadixSort::SortPairs(scratch, *bytes, k, k_to, v, v_to, n, begin_bit, end_bit);
}

// Asks for scratch space where `scratch` is null; a CUDA error or 0.
extern "C" int cub_sort(int key_bytes, int value_bytes, void* keys, void* keys_to, void* values, void* values_to,
                        int64_t n, int begin_bit, int end_bit, void* scratch, size_t* bytes) {
    if (key_bytes == 4 && value_bytes == 8)
        return sort<uint32_t, uint64_t>(keys, keys_to, values, values_to, n, begin_bit, end_bit, scratch, bytes);
    if (key_bytes == 4) return sort<uint32_t, uint32_t>(keys, keys_to, values, values_to, n, begin_bit, end_bit, scratch, bytes);
    return sort<uint64_t, uint64_t>(keys, keys_to, values, values_to, n, begin_bit, end_bit, scratch, bytes);
}
