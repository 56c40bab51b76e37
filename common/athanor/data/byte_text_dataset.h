// The former place of athanor/data/formats/byte_text_dataset.h.
#pragma once

#include "athanor/data/formats/byte_text_dataset.h"
