// Equals law/context.py: a client's limit on input and output together.
#pragma once

#include "lane.h"

namespace SG_NAMESPACE {

SG_DEVICE int32_t cut_input(int32_t tokens, int32_t context) {
    return context > 0 && tokens > context - 1 ? context - 1 : tokens;
}

SG_DEVICE int32_t cut_output(int32_t output, int32_t tokens, int32_t context) {
    const int32_t room = context - tokens > 1 ? context - tokens : 1;
    return context > 0 && output > room ? room : output;
}

}  // namespace SG_NAMESPACE
