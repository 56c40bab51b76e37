// The former place of athanor/data/formats/token_dataset.h.
#pragma once

#include "athanor/data/formats/token_dataset.h"
