// The former place of athanor/data/formats/classic_datasets.h.
#pragma once

#include "athanor/data/formats/classic_datasets.h"
