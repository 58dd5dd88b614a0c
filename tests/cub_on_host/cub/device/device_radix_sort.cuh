// What kernels/sort.cu and bench/cub_sort.cu need of CUB, for a host compiler: stable sorts of some bits of a key, which
// leave the result where CUB may leave it, and refuse what CUB refuses.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidDevice = 101;

inline cudaError_t cudaSetDevice(int device) { return device < 8 ? cudaSuccess : cudaErrorInvalidDevice; }

namespace cub {

template <class T>
struct DoubleBuffer {
    T* d_buffers[2];
    int selector = 0;
    DoubleBuffer(T* current, T* alternate) : d_buffers{current, alternate} {}
    T* Current() const { return d_buffers[selector]; }
    T* Alternate() const { return d_buffers[selector ^ 1]; }
};

struct DeviceRadixSort {
    template <class K, class V>
    static cudaError_t SortPairs(void* scratch, size_t& bytes, const K* keys, K* keys_to, const V* values, V* values_to,
                                 int64_t n, int begin_bit = 0, int end_bit = sizeof(K) * 8, cudaStream_t = nullptr) {
        if (begin_bit < 0 || begin_bit >= end_bit || end_bit > int{sizeof(K)} * 8) return cudaErrorInvalidValue;
        if (!scratch) {
            bytes = 256;
            return cudaSuccess;
        }
        if (bytes < 256) return cudaErrorInvalidValue;
        std::vector<int64_t> order(n);
        std::iota(order.begin(), order.end(), int64_t{0});
        const int unused = static_cast<int>(sizeof(K)) * 8 - end_bit;
        const auto part = [&](int64_t i) { return static_cast<K>(static_cast<K>(keys[i] << unused) >> unused) >> begin_bit; };
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return part(a) < part(b); });
        for (int64_t i = 0; i < n; ++i) keys_to[i] = keys[order[i]];
        if (values)
            for (int64_t i = 0; i < n; ++i) values_to[i] = values[order[i]];
        return cudaSuccess;
    }

    template <class K>
    static cudaError_t SortKeys(void* scratch, size_t& bytes, const K* keys, K* keys_to, int64_t n, int begin_bit = 0,
                                int end_bit = sizeof(K) * 8, cudaStream_t stream = nullptr) {
        return SortPairs<K, K>(scratch, bytes, keys, keys_to, nullptr, nullptr, n, begin_bit, end_bit, stream);
    }

    // An odd number of passes of 8 bits ends in the other buffer; what is left in the first means nothing.
    template <class K>
    static cudaError_t SortKeys(void* scratch, size_t& bytes, DoubleBuffer<K>& keys, int64_t n, int begin_bit = 0,
                                int end_bit = sizeof(K) * 8, cudaStream_t stream = nullptr) {
        const auto error = SortKeys(scratch, bytes, keys.Current(), keys.Alternate(), n, begin_bit, end_bit, stream);
        if (error || !scratch) return error;
        if ((end_bit - begin_bit + 7) / 8 % 2) {
            keys.selector ^= 1;
        } else {
            std::copy_n(keys.Alternate(), n, keys.Current());
        }
        std::fill_n(keys.Alternate(), n, K{0xA5});
        return cudaSuccess;
    }
};

}  // namespace cub
